# The packages of one lock file in /opt/torpor, which is root's. Nothing of Torpor itself, so that this layer outlives changes of its code.
ARG BASE
FROM ${BASE}
RUN --mount=type=bind,target=/mnt/context \
    --mount=type=secret,id=network --mount=type=secret,id=certificates \
    --mount=type=cache,target=/var/cache/uv \
    sh /mnt/context/install-dependencies
