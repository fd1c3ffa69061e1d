#!/usr/bin/env bash
# Removes what pgherd's label says is pgherd's: containers, volumes with their data, networks, images.
set -euo pipefail

each() { xargs -r "$@" >/dev/null || true; }

docker ps -aq --filter label=pgherd=1 | each docker rm -fv
docker volume ls -q --filter label=pgherd=1 | each docker volume rm
docker network ls -q --filter label=pgherd=1 | each docker network rm
docker image ls -q --filter label=pgherd=1 | sort -u | each docker image rm -f
