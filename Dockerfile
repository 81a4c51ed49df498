# Two stages: build the environment, then run it as a user without rights.
# A CPU image: docker build --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN python3 -m venv .venv && .venv/bin/pip install --quiet --constraint constraints.txt pip torch
COPY pipelines ./pipelines
COPY service ./service
RUN .venv/bin/pip install --quiet --constraint constraints.txt .
RUN .venv/bin/rootstock doctor

FROM python:3.11-slim
WORKDIR /app
COPY --from=build /app/.venv ./.venv
RUN mkdir work && chmod 1777 work
ENV PATH=/app/.venv/bin:$PATH HF_HUB_OFFLINE=1 HOME=/tmp
WORKDIR /app/work
USER 10001:10001
ENTRYPOINT ["rootstock"]
CMD ["--help"]
