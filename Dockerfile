# Two images of one Headwater: `worker`, the last and so the default, and `demo`, which adds a data set to replay.
# Every package comes from a hashed lock file; where there is no wheel of Faust (Linux on ARM) it installs without
# its C parts, so no compiler is needed.
FROM python:3.12.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HEADWATER_DATA_DIR=/var/lib/headwater
RUN groupadd --system --gid 10001 headwater \
    && useradd --system --uid 10001 --gid headwater --no-create-home --shell /usr/sbin/nologin headwater \
    && install --directory --owner headwater --group headwater /var/lib/headwater
WORKDIR /opt/headwater
COPY requirements/base.txt requirements/base.txt
RUN pip install --require-hashes -r requirements/base.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY agents agents
COPY tables tables
COPY streaming streaming
COPY learning learning
COPY features features
COPY pipelines pipelines
RUN pip install --no-deps --no-build-isolation .
# A pipeline of one's own is mounted or copied here: HEADWATER_PIPELINE=module:name looks in the working folder.
WORKDIR /pipeline
USER 10001:10001
ENTRYPOINT ["headwater"]
CMD ["worker"]

FROM base AS demo
USER root
COPY requirements/data.txt /opt/headwater/requirements/data.txt
RUN pip install --require-hashes --no-deps --no-build-isolation -r /opt/headwater/requirements/data.txt
USER 10001:10001

FROM base AS worker
