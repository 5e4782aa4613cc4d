# The server on a CPU:
#   docker build -t pcaseg .
#   docker run --read-only --cap-drop ALL -p 127.0.0.1:8000:8000 -v "$PWD/scene.pcaseg:/bundle.pcaseg:ro" pcaseg
FROM python:3.12-slim-bookworm AS build
COPY . /src
RUN python -m venv /opt/pcaseg && /opt/pcaseg/bin/pip install --no-cache-dir "/src[serve,onnxruntime]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/pcaseg /opt/pcaseg
ENV PATH=/opt/pcaseg/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/live', timeout=4)"]
ENTRYPOINT ["pcaseg", "serve"]
CMD ["/bundle.pcaseg", "--host", "0.0.0.0"]
