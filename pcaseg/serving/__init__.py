"""A server on one bundle: the Open Inference Protocol over HTTP, and a page for people.

Nothing here imports torch. Starlette, uvicorn and prometheus-client come with the extra `serve`.
"""
