#!/usr/bin/env bash
# Removes what make, the stories and the benches made, by the labels that they give: containers, networks,
# volumes with their data; then the images that docker/*.sh and the benches made. A container takes over its
# image's labels, so the image's own label (pgherd=1) says nothing about whose a container is.
set -euo pipefail

remove() { # KIND NAME...: what is still in use stays, and docker says why
  local kind=$1 name rm=(docker "$1" rm)
  shift
  [ "$kind" != container ] || rm+=(-fv)
  for name in "$@"; do
    if "${rm[@]}" "$name" >/dev/null; then echo "clean: removed $kind $name"; fi
  done
}

for label in pgherd.made-by=make pgherd.story=1; do
  mapfile -t found < <(docker container ls -a --filter "label=$label" --format '{{.Names}}')
  remove container "${found[@]}"
  mapfile -t found < <(docker network ls --filter "label=$label" --format '{{.Name}}')
  remove network "${found[@]}"
  mapfile -t found < <(docker volume ls -q --filter "label=$label")
  remove volume "${found[@]}"
done

# By our own names, and the nameless ones that a broken-off build leaves: an image that somebody built on
# top of ours has the label too. A debian:*-slim without it was pulled, not made here.
ours=()
for image in pgherd:17 pgherd:15 pgherd-{haproxy,pgbouncer}:{17,15} pgherd-s3-server pgherd-build pgherd-patroni debian:trixie-slim debian:bookworm-slim; do
  [ -z "$(docker image ls -q --filter label=pgherd=1 "$image")" ] || ours+=("$image")
done
mapfile -t -O "${#ours[@]}" ours < <(docker image ls -q --filter label=pgherd=1 --filter dangling=true)
remove image "${ours[@]}"
