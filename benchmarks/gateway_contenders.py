"""
The gateways that are measured: how each is installed, told where the vendor is, and started.

Each hands the vendor's answers on under `/v1/chat/completions`. Ours has everything on: a virtual
key with limits and a budget, the ledger, metrics. nginx understands nothing of what it carries;
LiteLLM has one key for all, as it keeps others in PostgreSQL; Portkey's gateway takes the vendor's
key from its callers.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from abc import abstractmethod
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec
from contenders import KEY, MODEL

__all__ = ["GATEWAYS", "Gateway", "Start", "new_key", "unsettled_or_lost"]

_TERMS = (
    "--models",
    "mistral-*",
    "--rpm",
    "100000000",
    "--tpm",
    "100000000000",
    "--budget",
    "1000000/month",
)
_LOOMS = (sys.executable, "-m", "loom.cli")
_MASTER_KEY = "sk-benchmark"
_VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway is started, and what its callers send."""

    command: list[str]
    # None: where it likes, and it says so in a line of JSON.
    port: int | None = None
    environment: dict[str, str] = {}
    headers: dict[str, str] = {}


def new_key(environment: dict[str, str], name: str, *terms: str) -> str:
    """Make a key of ours, by the options of `looms keys create`."""
    made = subprocess.run(
        [*_LOOMS, "keys", "create", "--name", name, *terms, "--json"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return str(json.loads(made.stdout)["key"])


class Gateway(Protocol):
    """
    One that is measured.

    Args:
        peers: In which folder the peers are installed.
    """

    @abstractmethod
    def __init__(self, peers: Path) -> None:
        """Keep where it is."""

    @abstractmethod
    def install(self) -> None:
        """Install it, unless that is the machine's task."""

    @abstractmethod
    def version(self) -> str | None:
        """Say which it is; None if it is not there."""

    @abstractmethod
    def start(self, folder: Path, upstream: str, port: int) -> Start:
        """Write what it reads into a folder, and say how to start it."""


class Loom:
    """Ours, as `looms serve` starts it, with a key of each kind of limit; asked as Mistral is."""

    dialect = "mistral"

    def __init__(self, peers: Path) -> None:
        """Need no folder: it is installed here."""

    def install(self) -> None:
        """Leave that to whoever made this environment."""

    def version(self) -> str | None:
        """Say which it is."""
        return version("looms")

    def start(self, folder: Path, upstream: str, port: int) -> Start:  # noqa: ARG002 - it finds one
        """Make a key whose limits are counted and never reached."""
        environment = {
            "LOOM_DATA_DIR": str(folder),
            "LOOM_BASE_URL": f"{upstream}/v1",
            "MISTRAL_API_KEY": KEY,
        }
        return Start(
            command=[*_LOOMS, "serve", "--port", "0", "--json"],
            environment=environment,
            headers={
                "authorization": f"Bearer {new_key(environment, 'benchmark', *_TERMS)}",
                "x-loom-dialect": self.dialect,
            },
        )


class LoomTranslating(Loom):
    """The same, asked as OpenAI is: each request and answer is translated."""

    dialect = "openai"


class Nginx:
    """Carries bytes, with each connection to the vendor kept: the floor."""

    def __init__(self, peers: Path) -> None:  # noqa: ARG002 - it is the machine's
        # It stands where only root's PATH looks.
        self._binary = shutil.which("nginx", path=f"{os.environ.get('PATH')}:/usr/sbin")

    def install(self) -> None:
        """Leave that to the machine: it is a package of every Linux."""

    def version(self) -> str | None:
        """Ask nginx."""
        if self._binary is None:
            return None
        done = subprocess.run([self._binary, "-v"], capture_output=True, text=True, check=True)
        return done.stderr.strip().rpartition("/")[2]

    def start(self, folder: Path, upstream: str, port: int) -> Start:
        """Write its configuration: one worker, no log, nothing kept back of a stream."""
        (folder / "nginx.conf").write_text(
            f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; keepalive_requests 1000000000; client_body_temp_path {folder};
                proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
                scgi_temp_path {folder};
                upstream vendor {{
                    server {upstream.removeprefix("http://")};
                    keepalive 512; keepalive_requests 1000000000;
                }}
                server {{
                    listen 127.0.0.1:{port} backlog=4096;
                    location / {{
                        proxy_pass http://vendor; proxy_http_version 1.1; proxy_buffering off;
                        proxy_set_header Connection "";
                    }}
                }}
            }}"""
        )
        command = [str(self._binary), "-p", str(folder), "-e", "stderr"]
        return Start(command=[*command, "-c", str(folder / "nginx.conf")], port=port)


class LiteLLM:
    """The proxy that most people know, with one worker and one key."""

    def __init__(self, peers: Path) -> None:
        self._environment = peers / "litellm"
        self._python = str(self._environment / "bin" / "python")

    def install(self) -> None:
        """Install it into an environment of its own."""
        _uv("venv", "--quiet", "--allow-existing", str(self._environment))
        _uv("pip", "install", "--quiet", "--python", self._python, "litellm[proxy]")

    def version(self) -> str | None:
        """Ask its environment."""
        if not Path(self._python).exists():
            return None
        command = [self._python, "-c", _VERSION, "litellm"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def start(self, folder: Path, upstream: str, port: int) -> Start:
        """Write its configuration: one model, of Mistral's, at our vendor."""
        vendor = {"model": f"mistral/{MODEL}", "api_base": f"{upstream}/v1", "api_key": KEY}
        config = {
            "model_list": [{"model_name": MODEL, "litellm_params": vendor}],
            "general_settings": {"master_key": _MASTER_KEY},
        }
        # JSON is YAML.
        (folder / "config.yaml").write_text(json.dumps(config))
        command = [str(self._environment / "bin" / "litellm"), "--config"]
        return Start(
            command=[*command, f"{folder}/config.yaml", "--host", "127.0.0.1", "--port", str(port)],
            port=port,
            environment={
                # It would ask the network for prices.
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_LOG": "ERROR",
                # Else it ends a stream whose pieces are alike, as ours are.
                "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",
            },
            headers={"authorization": f"Bearer {_MASTER_KEY}"},
        )


class Portkey:
    """Portkey's gateway on node, without keys, prices or a ledger of its own."""

    def __init__(self, peers: Path) -> None:
        self._folder = peers / "portkey"
        self._package = self._folder / "node_modules" / "@portkey-ai" / "gateway"

    def install(self) -> None:
        """Install it into a folder of its own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # With the newest of that part each stream is an error 500: its headers are "immutable".
        parts = {"@hono/node-server": "1.13.8"}
        package = {"dependencies": {"@portkey-ai/gateway": "*"}, "overrides": parts}
        (self._folder / "package.json").write_text(json.dumps(package))
        command = ["npm", "install", "--silent", "--prefix", str(self._folder)]
        subprocess.run(command, check=True)

    def version(self) -> str | None:
        """Read its package."""
        if not self._package.exists() or shutil.which("node") is None:
            return None
        return str(json.loads((self._package / "package.json").read_text())["version"])

    def start(self, folder: Path, upstream: str, port: int) -> Start:  # noqa: ARG002 - it reads none
        """Name the vendor in the headers of each call."""
        script = str(self._package / "build" / "start-server.js")
        return Start(
            command=["node", script, f"--port={port}", "--headless"],
            port=port,
            environment={"NODE_ENV": "production"},
            headers={
                "authorization": f"Bearer {KEY}",
                "x-portkey-provider": "mistral-ai",
                "x-portkey-custom-host": f"{upstream}/v1",
            },
        )


def unsettled_or_lost(folder: Path, calls: int) -> str | None:
    """
    Compare the ledger of ours with what was asked, once it has stopped.

    Args:
        folder: Where it kept its data.
        calls: How many answers it gave; what the limit of a key refuses has no row.

    Returns:
        What is wrong; None when each call has one row, and its price.
    """
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        query = "SELECT count(*), sum(state = 'settled' AND cost_usd IS NOT NULL) FROM calls"
        rows, settled = connection.execute(query).fetchone()
    if (rows, settled) == (calls, calls):
        return None
    return f"{rows} rows, {settled} settled; {calls} calls were answered"


def _uv(*arguments: str) -> None:
    subprocess.run(["uv", *arguments], check=True)  # noqa: S607  uv is where the PATH says


GATEWAYS: dict[str, type[Gateway]] = {
    "loom": Loom,
    "loom-openai": LoomTranslating,
    "nginx": Nginx,
    "litellm": LiteLLM,
    "portkey": Portkey,
}
