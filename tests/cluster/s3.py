"""As much of S3 as s3fs needs to read, write, list and delete small objects, served on this machine."""

import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import s3fs


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        return None

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fault(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    @property
    def key(self):
        return unquote(urlsplit(self.path).path).strip("/")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            if self.headers.get("If-None-Match") == "*" and self.key in self.server.objects:
                return self.fault(412, "PreconditionFailed")
            self.server.objects[self.key] = body
        return self.answer(200, ETag='"x"')

    def do_GET(self):
        if "/" not in self.key:
            return self.listing()
        if (body := self.server.objects.get(self.key)) is None:
            return self.fault(404, "NoSuchKey")
        return self.answer(200, body, ETag='"x"', Last_Modified="Sat, 28 Nov 2026 00:00:00 GMT")

    do_HEAD = do_GET

    def do_DELETE(self):
        self.server.objects.pop(self.key, None)
        return self.answer(204)

    def listing(self):
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, delimiter, folders, text = asked.get("prefix", ""), asked.get("delimiter"), set(), ""
        for name, body in sorted(self.server.objects.items()):
            name = name.removeprefix(f"{self.key}/")
            if name.startswith(prefix):
                if delimiter and delimiter in (rest := name[len(prefix) :]):
                    folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                else:
                    text += f"<Contents><Key>{escape(name)}</Key><Size>{len(body)}</Size><ETag>x</ETag>"
                    text += "<LastModified>2026-11-28T00:00:00Z</LastModified></Contents>"
        text += "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        body = f"<ListBucketResult><Name>{self.key}</Name><IsTruncated>false</IsTruncated>{text}</ListBucketResult>"
        return self.answer(200, body.encode(), Content_Type="application/xml")


@contextmanager
def s3_server():
    """Serves, and tells of it in this process's environment."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.objects, server.lock = {}, threading.Lock()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        s3fs.S3FileSystem.clear_instance_cache()  # clients of this process know an earlier server's address
        with mock.patch.dict(os.environ, told):
            yield server
        server.shutdown()
