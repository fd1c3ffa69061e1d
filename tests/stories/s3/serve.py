"""S3 on port 9000, with a bucket, for whoever shows the key that he was told. moto itself lets everybody in; what
it would check instead, it computes wrongly where there is a slash in a question."""
import os

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

KEY = f"Credential={os.environ['KEY']}/"
BUCKET = os.environ["BUCKET"]
moto = DomainDispatcherApplication(create_backend_app)


def guarded(environ, respond):
    if KEY not in environ.get("HTTP_AUTHORIZATION", ""):
        respond("403 Forbidden", [("Content-Type", "text/plain")])
        return [b""]
    return moto(environ, respond)


def make_bucket():
    at = {"endpoint_url": "http://127.0.0.1:9000", "region_name": "us-east-1"}
    keys = {"aws_access_key_id": os.environ["KEY"], "aws_secret_access_key": "any"}
    boto3.client("s3", **at, **keys).create_bucket(Bucket=BUCKET)
    print("serves", flush=True)


if __name__ == "__main__":
    import threading

    threading.Timer(0.5, make_bucket).start()  # It tries again until somebody answers.
    run_simple("0.0.0.0", 9000, guarded, threaded=True)
