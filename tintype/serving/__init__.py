"""One model, many who ask: a durable queue and the worker that draws from it. Knows no HTTP."""
