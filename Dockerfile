# The server in a container, by the model inside it:
#   docker build -t tintype .                                       CPU
#   docker build -t tintype --build-arg TORCH=cu128 .               CUDA 12.8; run it with --gpus all
#   docker run -p 127.0.0.1:7860:7860 -e TINTYPE_TOKEN=… -v tintype:/data tintype
# As a hosted Space it runs as it is: deploy/space.md.
FROM python:3.12-slim

ARG TORCH=cpu
RUN useradd --uid 1000 --create-home tintype && mkdir /data /models && chown 1000:1000 /data /models
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY tintype tintype
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "https://download.pytorch.org/whl/${TORCH}" torch \
 && pip install --no-cache-dir --constraint constraints.txt ".[serve]"

USER 1000
ENV PYTHONUNBUFFERED=1
VOLUME /data /models
EXPOSE 7860
# The token is taken from TINTYPE_TOKEN; without one the server does not start, since others can reach it here.
CMD ["tintype", "serve", "--host", "0.0.0.0", "--data", "/data", "--models", "/models", \
     "--allow-frame", "https://huggingface.co"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
