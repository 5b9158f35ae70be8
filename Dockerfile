# API, worker and operators' commands: one image, the command decides.
# The Python line is the one that the locks are compiled for and the tests run on.

FROM python:3.11-slim-bookworm AS packages
COPY requirements.lock ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r requirements.lock

FROM python:3.11-slim-bookworm
# The release, as pyproject.toml has it; the commit only if the build is told: --build-arg COMMIT=$(git rev-parse HEAD)
ARG COMMIT=
LABEL org.opencontainers.image.title="Fastbell" \
      org.opencontainers.image.version="0.2.0.dev0" \
      org.opencontainers.image.revision="$COMMIT"
# A fixed id, so that the owner of mounted key files can be given by number.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin fastbell
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/fastbell
COPY alembic.ini pyproject.toml cli.py worker.py ./
COPY activities/ activities/
COPY api/ api/
COPY commands/ commands/
COPY db/ db/
COPY dispatch/ dispatch/
COPY domain/ domain/
COPY fleet/ fleet/
COPY operations/ operations/
COPY push/ push/
COPY sending/ sending/
COPY settings/ settings/
COPY telemetry/ telemetry/
COPY webhooks/ webhooks/
COPY workflows/ workflows/
COPY deploy/healthy.py deploy/
USER 10001:10001
CMD ["python", "-m", "api"]
