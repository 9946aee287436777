"""moto's S3, careful about conditional puts.

`moto_server` answers on many threads and looks whether a key is free before it writes, without a lock in between: of racing puts
sometimes two are told that they created the object. Here a request is collected first and then answered alone.

Usage: moto_careful.py PORT [CERTIFICATE KEY]
"""

import io
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto = DomainDispatcherApplication(create_backend_app)
one_at_a_time = threading.Lock()


def application(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
    with one_at_a_time:
        answer = moto(environ, start_response)
        try:
            return [b"".join(answer)]
        finally:
            if hasattr(answer, "close"):
                answer.close()


tls = tuple(sys.argv[2:4]) or None
run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, ssl_context=tls)
