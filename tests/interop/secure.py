"""What the wss suites of tests/interop/run need: a test CA, and real proxies on ports of their own."""

import os
import shutil
import socket
import subprocess
import time

SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where Debian keeps servers


class Absent(Exception):
    """A program that is not installed."""


def program(name):
    found = shutil.which(name, path=SEARCH)
    if not found:
        raise Absent(f"{name} is not installed")
    return found


def make_certificates(folder):
    """ca.pem, and cert.pem with key.pem for localhost, all of them new."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for arguments in (
        ["req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=levada test CA"],
        ["req", *new_key, "-keyout", "key.pem", "-out", "leaf.csr", "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        + ["-extfile", "names", "-out", "cert.pem"],
    ):
        subprocess.run([program("openssl"), *arguments], cwd=folder, check=True, capture_output=True)


def trusting(folder):
    """The prefix of a command that trusts ca.pem: OpenSSL and Go read the one name, Node the other."""
    ca = folder / "ca.pem"
    return ["env", f"SSL_CERT_FILE={ca}", f"NODE_EXTRA_CA_CERTS={ca}"]


def make_browser_home(folder):
    """A home directory in which Chromium finds ca.pem."""
    database = folder / "home" / ".pki" / "nssdb"
    shutil.rmtree(folder / "home", ignore_errors=True)
    database.mkdir(parents=True)
    certutil = [program("certutil"), "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True, capture_output=True)
    add = ["-A", "-n", "levada test CA", "-t", "C,,", "-i", str(folder / "ca.pem")]
    subprocess.run([*certutil, *add], check=True, capture_output=True)
    return folder / "home"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Proxy:
    """A process that listens on `port`; its output is kept in `folder`."""

    def __init__(self, folder, port, command):
        self.port = port
        self.log = open(folder / "proxy.log", "w")
        self.process = subprocess.Popen(command, cwd=folder, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while not self.listens():
            if self.ended_within(0.02) or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{command[0]} did not start, see {self.log.name}")

    def ended_within(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def tinyproxy(folder):
    """HTTP CONNECT for user:secret."""
    port = free_port()
    (folder / "tinyproxy.conf").write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth user secret\nAllow 127.0.0.1\nDisableViaHeader Yes\n"
    )
    return Proxy(folder, port, [program("tinyproxy"), "-d", "-c", "tinyproxy.conf"])


def microsocks(folder):
    """SOCKS5 for user:secret."""
    port = free_port()
    command = [program("microsocks"), "-i", "127.0.0.1", "-p", str(port), "-u", "user", "-P", "secret"]
    return Proxy(folder, port, command)


def haproxy(folder, target, version):
    """Passes TCP on to 127.0.0.1:`target` with a PROXY header of that version."""
    port = free_port()
    send = {1: "send-proxy", 2: "send-proxy-v2"}[version]
    (folder / "haproxy.cfg").write_text(
        "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n"
        f"listen echo\n bind 127.0.0.1:{port}\n server one 127.0.0.1:{target} {send}\n"
    )
    return Proxy(folder, port, [program("haproxy"), "-db", "-f", "haproxy.cfg"])


def nginx(folder, target):
    """The same; nginx writes version 1."""
    port = free_port()
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    load = f"load_module {module};\n" if os.path.exists(module) else ""
    (folder / "nginx.conf").write_text(
        f"{load}daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        "events {}\n"
        f"stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{target}; proxy_protocol on; }} }}\n"
    )
    command = [program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    return Proxy(folder, port, command)
