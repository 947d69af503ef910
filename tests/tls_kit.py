"""A certificate for 127.0.0.1 that nobody vouches for."""

import ssl
from pathlib import Path

SELF_SIGNED = """
MIIBnjCCAUSgAwIBAgIUM+9DfaYj3QZcSu2jNrtTOCP87I4wCgYIKoZIzj0EAwIwGzEZMBcGA1UEAwwQc2VsZi1zaWduZWQudGVzdDAgFw0yNjExMjEwNjI1MjdaGA8y
MTI2MTAyODA2MjUyN1owGzEZMBcGA1UEAwwQc2VsZi1zaWduZWQudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCFb7YBmIPQPFuhCzWnRJAxyBWiuxbTHGq52
Oo5g67WVyr5ey0w1kfCTaL1gww4VfnHsENO/I7lbD4qzgZ9qvjSjZDBiMB0GA1UdDgQWBBSVoUXQUNBeM5voQ/ULMEiUMB3Q8TAfBgNVHSMEGDAWgBSVoUXQUNBeM5vo
Q/ULMEiUMB3Q8TAPBgNVHRMBAf8EBTADAQH/MA8GA1UdEQQIMAaHBH8AAAEwCgYIKoZIzj0EAwIDSAAwRQIgak5Y+Fn3f8nT6GZm9r0X4AJLb+umDFa3giGm+PKOzzYC
IQDhegY6rQrNR5g/WYT5K+tpaDeR3D8csLCUwSuJwZVJrA==
"""
SELF_SIGNED_KEY = """
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggPM5+cx9SAyBsOAwmTCbTELO7ySyAfWTP0Ui1oFUzIKhRANCAAQhW+2AZiD0DxboQs1p0SQMcgVorsW0
xxqudjqOYOu1lcq+XstMNZHwk2i9YMMOFX5x7BDTvyO5Ww+Ks4Gfar40
"""


def self_signed(folder: Path) -> ssl.SSLContext:
    """What a server answers with that has this certificate; it is kept in *folder* to be loaded."""
    pem = folder / "self-signed.pem"
    parts = (("PRIVATE KEY", SELF_SIGNED_KEY), ("CERTIFICATE", SELF_SIGNED))
    pem.write_text("".join(f"-----BEGIN {what}-----{text}-----END {what}-----\n" for what, text in parts))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
