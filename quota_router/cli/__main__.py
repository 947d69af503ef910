"""`python -m quota_router.cli`, where the command is not on the path."""

from quota_router.cli import main

main()
