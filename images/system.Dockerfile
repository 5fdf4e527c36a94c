# Debian's part of an image: Python, an init that reaps what programs leave behind, the user 1000.
ARG BASE
FROM ${BASE}
ARG PACKAGES
RUN --mount=type=bind,target=/mnt/context sh /mnt/context/install-system ${PACKAGES}
