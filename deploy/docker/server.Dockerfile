# Serving pods and profiling Jobs. `deploy/docker/build` puts the wheels into the context; nothing is fetched here. For
# an accelerator, make the wheels where the package installer gives torch for it. BASE: any Debian-like image with
# Python 3.11 or later and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS install
RUN --mount=type=bind,source=wheels,target=/wheels \
    python3 -m venv /opt/helios \
 && /opt/helios/bin/python -m pip install --no-index --no-cache-dir --find-links=/wheels 'helios-serve[server,otel]' \
 && /opt/helios/bin/python -m pip uninstall --yes --quiet pip

FROM ${BASE}
LABEL org.opencontainers.image.title="helios-server" \
      org.opencontainers.image.licenses="Apache-2.0"
# The id that manifests rely on; the home is the one folder that a pod can write to.
RUN useradd --uid 65532 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin helios
COPY --from=install /opt/helios /opt/helios
ENV PATH=/opt/helios/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["helios"]
CMD ["--help"]
