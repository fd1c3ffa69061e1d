#!/usr/bin/env bash
# Builds and tags pgherd:17, pgherd:15 or both at once, around the binary that cargo makes here.
set -euo pipefail
cd "$(dirname "$0")/.."

build() {
  local pg=$1 suite image=pgherd:$1 before after log version size
  case $pg in
    17) suite=trixie ;;
    15) suite=bookworm ;;
    *) echo "image: no Debian release for PostgreSQL $pg: PG is 17 or 15" >&2; exit 2 ;;
  esac
  docker/base.sh "$suite"
  before=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null) || true
  log=$(mktemp)
  echo "image: building $image on debian:$suite-slim (the first time: about a minute)"
  if ! docker build --target local --build-arg "BASE=debian:$suite-slim" -f docker/Dockerfile -t "$image" . >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    exit 1
  fi
  rm -f "$log"

  if ! version=$(docker run --rm --label pgherd.made-by=make --entrypoint pgherd "$image" --version 2>&1); then
    echo "image: pgherd does not run in $image: $version" >&2
    case $version in
      *GLIBC_*) echo "image: it was linked with a newer glibc than $suite's; where a registry can be reached:" \
        "docker build -f docker/Dockerfile --build-arg BASE=debian:$suite-slim -t $image ." >&2 ;;
    esac
    exit 1
  fi
  after=$(docker image inspect -f '{{.Id}}' "$image")
  # The image of the build before would stay for ever, without a name. One in use does stay.
  if [ -n "$before" ] && [ "$before" != "$after" ]; then docker image rm "$before" >/dev/null 2>&1 || true; fi
  size=$(docker image inspect -f '{{.Size}}' "$image")
  echo "image: $image, $version, $((size / 1000000)) MB"
}

# A binary asks for the glibc it was linked with or newer. Where ours is newer than that of the oldest
# base, cargo and rustc go to work inside that base instead; rustup's run there, the distribution's may not.
oldest=2.36
compile() {
  local glibc sysroot cargo_home=${CARGO_HOME:-$HOME/.cargo}
  glibc=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
  if [ "$(printf '%s\n' "$glibc" "$oldest" | sort -V | tail -n 1)" = "$oldest" ]; then
    echo "image: cargo build --release"
    cargo build --release --locked --quiet --target-dir target
    return
  fi
  echo "image: cargo build --release, on debian:bookworm-slim because glibc here is $glibc"
  docker/base.sh bookworm
  docker image inspect pgherd-build >/dev/null 2>&1 ||
    printf '%s\n' 'FROM debian:bookworm-slim' 'LABEL pgherd="1"' \
      'RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*' |
    docker build -q -t pgherd-build - >/dev/null
  cargo fetch --locked --quiet
  mkdir -p target/bookworm target/release "$cargo_home/registry"
  sysroot=$(rustc --print sysroot)
  docker run --rm --label pgherd.made-by=make --network none --user "$(id -u):$(id -g)" --tmpfs /cargo:mode=1777 \
    -v "$cargo_home/registry:/cargo/registry" -v "$sysroot:/rust:ro" -v "$PWD:/src" -w /src \
    -e CARGO_HOME=/cargo -e PATH=/rust/bin:/usr/bin:/bin \
    pgherd-build cargo build --release --locked --offline --quiet --target-dir target/bookworm
  cp target/bookworm/release/pgherd target/release/pgherd
}

compile

builds=()
for pg in "${@:-17}"; do
  build "$pg" &
  builds+=($!)
done
failed=0
for one in "${builds[@]}"; do wait "$one" || failed=$?; done
exit $failed
