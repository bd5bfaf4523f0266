"""What `tintype serve` promises, measured against the real server on this machine, which should do nothing else:

    python benchmarks/serving.py usable crowd health overhead throughput memory fuzz [--seconds 300] [--cases 10000]

usable      seconds from the start of the process to the first answer; promised: 2
crowd       200 requests at once with 8 places: how soon the others are told; promised: within 100 ms
health      /healthz while pictures are drawn; promised: 50 ms for 99 of 100
overhead    a picture asked for over HTTP and waited for, less the same call in Python, as a job (posted, its events
            watched, fetched) and in one call of OpenAI's interface; promised: 10 ms
throughput  pictures a second, as a share of the bare loop over the same requests; promised: 95 %
memory      RSS over 500 jobs and 50 switches of models, after the first tenth; promised: 5 %
fuzz        requests made from the schema, right and wrong: answers that are our fault; promised: none
"""

import argparse
import base64
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "apps" / "server"))

import httpx
from proofs import LONG, SMALL, begin, ended, percentile, running, serving, submit

REQUEST: dict[str, object] = {"prompt": "a red apple", "steps": 10, "seed": 1, "width": 64, "height": 64}


def milliseconds(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(1e3 * percentile(values, share / 100), 1) for share in (50, 99, 100)}


def usable(folder: Path, options: argparse.Namespace) -> object:
    found: list[float] = []
    for number in range(5):
        with serving(folder / str(number)) as server:
            found.append(round(server.usable, 2))
    return {"seconds": found, "median": statistics.median(found)}


def crowd(folder: Path, options: argparse.Namespace) -> object:
    from test_crowd import crowd

    with serving(folder, "--queue", "8") as server, server.ready().client() as client:
        ended(client, submit(client))
        told: dict[str, object] = {}
        for name, drawing in (("idle", False), ("drawing", True)):
            blocks = [submit(client, **LONG)] if drawing else []
            for block in blocks:
                running(client, block)
            before = server.rss()
            answers = crowd(server, 200, SMALL if drawing else LONG)
            refused = [took for status, _, _, took in answers if status == 429]
            taken = [json.loads(content)["id"] for status, _, content, _ in answers if status == 202]
            for id in [*blocks, *taken]:
                client.post(f"/v1/jobs/{id}/cancel")
            states = [ended(client, id)["state"] for id in taken]
            told[name] = {
                "taken": len(taken), "refused": len(refused), "refused_ms": milliseconds(refused),
                "ended": len(states), "rss": round(server.rss() / before, 3),
            }  # fmt: skip
        return told


def health(folder: Path, options: argparse.Namespace) -> object:
    with serving(folder) as server, server.ready().client() as client, server.client() as other:
        found: list[float] = []
        until = time.monotonic() + options.seconds
        id = ""
        while time.monotonic() < until:
            if not id or client.get(f"/v1/jobs/{id}").json()["state"] not in ("queued", "running"):
                id = submit(client, **LONG)
                running(client, id)
            for _ in range(100):
                began = time.perf_counter()
                other.get("/healthz").raise_for_status()
                found.append(time.perf_counter() - began)
                time.sleep(0.01)
        return {"asked": len(found), **milliseconds(found)}


def waited(client: httpx.Client, body: dict[str, object]) -> bytes:
    """The picture of a request: submitted, watched to its end, fetched."""
    id = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    with client.stream("GET", f"/v1/jobs/{id}/events") as events:
        for _ in events.iter_lines():
            pass
    return client.get(f"/v1/jobs/{id}/pictures/0").raise_for_status().content


def called(client: httpx.Client, body: dict[str, object]) -> bytes:
    """The same in one call."""
    answer = client.post("/v1/images/generations", json=body | {"size": "64x64"}).raise_for_status()
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


def bare(folder: Path, count: int) -> list[float]:
    """Seconds of each of so many requests in Python: drawn and saved."""
    import tintype

    model = tintype.load("default", device="cpu")
    found: list[float] = []
    for seed in range(count + 2):
        began = time.perf_counter()
        [picture] = tintype.generate(model, tintype.Request(**REQUEST | {"seed": seed}))  # pyright: ignore
        tintype.save(picture, folder / "bare.png")
        found.append(time.perf_counter() - began)
    return found[2:]


def overhead(folder: Path, options: argparse.Namespace) -> object:
    """In turns, so that what else the machine does falls on both."""
    import tintype

    folder.mkdir()
    model, alone = tintype.load("default", device="cpu"), list[float]()
    served: dict[str, list[float]] = {"job": [], "call": []}
    with serving(folder / "data") as server, server.ready().client() as client:
        for seed in range(42):
            body = REQUEST | {"seed": seed}
            began = time.perf_counter()
            [picture] = tintype.generate(model, tintype.Request(**body))  # pyright: ignore
            tintype.save(picture, folder / "bare.png")
            between = time.perf_counter()
            alone.append(between - began)
            for kind, ask in (("job", waited), ("call", called)):
                began = time.perf_counter()
                content = ask(client, body)
                served[kind].append(time.perf_counter() - began)
                assert content == (folder / "bare.png").read_bytes()
    usual = statistics.median(alone[2:])
    less = {kind: round(1e3 * (statistics.median(found[2:]) - usual), 1) for kind, found in served.items()}
    return {"python": milliseconds(alone[2:]), "served": milliseconds(served["job"][2:]), "overhead_ms": less}


def throughput(folder: Path, options: argparse.Namespace) -> object:
    """Without batches, which would be unfair to the bare loop; and with."""
    folder.mkdir()
    count, told = 60, dict[str, float]()
    for batch in (1, 4):
        flags = ("--batch", str(batch), "--queue", "999")
        with serving(folder / str(batch), *flags) as server, server.ready().client() as client:
            ended(client, submit(client))
            began = time.perf_counter()
            ids = [submit(client, **REQUEST | {"seed": seed}) for seed in range(count)]
            with client.stream("GET", f"/v1/jobs/{ids[-1]}/events") as events:
                for _ in events.iter_lines():
                    pass
            told[f"batch {batch}"] = count / (time.perf_counter() - began)
        told[f"bare, after batch {batch}"] = count / sum(bare(folder, count))
    loop = statistics.mean(value for name, value in told.items() if name.startswith("bare"))
    shares = {f"share of batch {batch}": told[f"batch {batch}"] / loop for batch in (1, 4)}
    return {name: round(value, 3) for name, value in (told | shares).items()}


def memory(folder: Path, options: argparse.Namespace) -> object:
    shutil.copytree(Path(str(resources.files("tintype.weights") / "default")), folder / "models" / "other")
    server = begin(folder / "data", "--models", str(folder / "models")).ready()
    sizes: list[int] = []
    with server.client() as client:
        for number in range(500):
            name = "other" if number // 10 % 2 else "default"
            assert ended(client, submit(client, model=name, seed=number))["state"] == "done"
            sizes.append(server.rss())
    code = server.stop()
    first, last = max(sizes[40:60]), max(sizes[-20:])
    return {"after 50": first >> 20, "after 500": last >> 20, "growth": round(last / first - 1, 4), "exit": code}


def fuzz(folder: Path, options: argparse.Namespace) -> object:
    from test_hostile import fuzz

    with serving(folder, "--queue", "64") as server:
        found, asked = fuzz(server.ready().url, options.cases // 10)
    return {"asked": asked, "our fault": found[:10]}


MEASURED: dict[str, Callable[[Path, argparse.Namespace], object]] = {
    one.__name__: one for one in (usable, crowd, health, overhead, throughput, memory, fuzz)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=MEASURED)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--cases", type=int, default=10_000)
    options = parser.parse_args()
    for name in options.what:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({name: MEASURED[name](Path(folder) / name, options)}), flush=True)


if __name__ == "__main__":
    main()
