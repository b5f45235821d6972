#!/usr/bin/env bash
# Images without a registry: makes local stand-ins for the base images that the Dockerfile and compose.yaml name, under
# the same tags, and an image of Antar from a binary that was built before. For tests and for places that no registry
# reaches; elsewhere `docker compose` pulls and builds by itself.
#
#   deploy/images.sh stand-ins         the Debian root, NATS and the balancer, each only if its tag is not there yet
#   deploy/images.sh antar BINARY TAG  an image of Antar from BINARY, with this machine's Debian release below it
#   deploy/images.sh remove            removes the stand-ins again, and nothing else
#
# An image that is there already is never replaced: stand-ins carry the label antar.stand-in, and only those are removed.
# The Debian root is made by debootstrap (as root) from the archive that this machine's apt uses, and kept as an archive
# under target/. nats-server is $NATS_SERVER, or the one in target/nats, or the one in PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

LABEL=antar.stand-in
# shellcheck source=/dev/null
release="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
# The same names and defaults as in compose.yaml; the Debian release is this machine's, so that its binaries run there.
RUNTIME_IMAGE="${RUNTIME_IMAGE:-debian:${release:-bookworm}-slim}"
NATS_IMAGE="${NATS_IMAGE:-nats:2.15-alpine}"
BALANCER_IMAGE="${BALANCER_IMAGE:-haproxy:2.6}"
# What the stand-ins are made of.
ROOT_IMAGE="antar-stand-in-root:${release:-none}"
CACHE="target/images"
# What the root has beyond the minimum: the balancer, and what NATS's health check asks with.
PACKAGES="haproxy,wget,ca-certificates"

# The classic builder does without a plugin, and BuildKit needs one with recent clients.
if ! docker buildx version >/dev/null 2>&1; then export DOCKER_BUILDKIT=0; fi

say() { printf 'images: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
there() { docker image inspect "$1" >/dev/null 2>&1; }

# A folder for one build, removed at the end. Every build has a context of its own: never the whole repository.
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# The archive that apt on this machine uses for its release, from either form of its lists.
mirror() {
    {
        sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) '"$release"' .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
        awk -v RS= -v release="$release" '
            $0 ~ "(^|\n)Suites:[^\n]* ?" release "( |\n|$)" && match($0, /(^|\n)URIs: *[^ \n]+/) {
                uri = substr($0, RSTART, RLENGTH); sub(/.*URIs: */, "", uri); print uri
            }' /etc/apt/sources.list.d/*.sources
    } 2>/dev/null | head -n 1
}

# The Debian root, as an archive that outlives the engine's images.
root() {
    there "$ROOT_IMAGE" && return
    local archive="$CACHE/root-$release.tar" from
    if [[ ! -s $archive ]]; then
        [[ -n $release ]] || fail "this is not a Debian machine, so there is no release to make a root of"
        command -v debootstrap >/dev/null || fail "debootstrap is missing"
        ((EUID == 0)) || fail "debootstrap needs root"
        from="$(mirror)"
        [[ -n $from ]] || fail "apt's lists name no archive of $release"
        say "a Debian root of $release by debootstrap, once"
        mkdir -p "$CACHE"
        debootstrap --variant=minbase --include="$PACKAGES" "$release" "$folder/root" "$from" >"$CACHE/debootstrap.log" 2>&1 ||
            fail "debootstrap failed: $(tail -n 3 "$CACHE/debootstrap.log")"
        rm -rf "$folder/root"/var/{cache/apt,lib/apt/lists,log}/* "$folder/root"/usr/share/{doc,man,locale,info}/*
        # Whole or not at all: a run that is cut off must leave nothing that looks finished.
        tar -C "$folder/root" --numeric-owner -cf "$archive.part" .
        mv "$archive.part" "$archive"
        rm -rf "$folder/root"
    fi
    docker import --change "LABEL $LABEL=root" "$archive" "$ROOT_IMAGE" >/dev/null
}

nats_server() {
    local candidate
    for candidate in "${NATS_SERVER:-}" target/nats/bin/nats-server "$(command -v nats-server || true)"; do
        if [[ -n $candidate && -x $candidate ]]; then
            echo "$candidate"
            return
        fi
    done
    fail "no nats-server: set NATS_SERVER, or let the tests put one into target/nats"
}

# tag_of IMAGE NAME: the root itself under another name.
tag_of() {
    if there "$1"; then return; fi
    root
    say "$1 is a stand-in"
    docker tag "$ROOT_IMAGE" "$1"
}

nats() {
    if there "$NATS_IMAGE"; then return; fi
    local binary
    binary="$(nats_server)"
    root
    say "$NATS_IMAGE is a stand-in: $("$binary" --version)"
    mkdir "$folder/nats"
    cp "$binary" "$folder/nats/nats-server"
    # As in the real image: the arguments of the server are the command.
    cat >"$folder/nats/Dockerfile" <<END
FROM $ROOT_IMAGE
LABEL $LABEL=nats
COPY nats-server /usr/local/bin/nats-server
ENTRYPOINT ["nats-server"]
END
    docker build -q -t "$NATS_IMAGE" "$folder/nats" >/dev/null
}

antar() {
    local binary="$1" tag="$2"
    [[ -x $binary ]] || fail "$binary is no program"
    mkdir "$folder/antar"
    # Symbols of a debug build are some hundred megabytes that nobody reads there.
    if ! strip -o "$folder/antar/antar" "$binary" 2>/dev/null; then cp "$binary" "$folder/antar/antar"; fi
    chmod 0755 "$folder/antar/antar"
    # The binary on top of the Dockerfile's first stage, which needs nothing of the repository.
    mkdir "$folder/runtime"
    cp deploy/Dockerfile "$folder/runtime/Dockerfile"
    docker build -q --target runtime --build-arg RUNTIME_IMAGE="$RUNTIME_IMAGE" -t "$tag-runtime" "$folder/runtime" >/dev/null
    printf 'FROM %s\nCOPY antar /usr/local/bin/antar\n' "$tag-runtime" >"$folder/antar/Dockerfile"
    docker build -q -t "$tag" "$folder/antar" >/dev/null
    docker image rm "$tag-runtime" >/dev/null
    say "$tag is $("$binary" --version)"
}

remove() {
    docker image ls -q --filter "label=$LABEL" | sort -u | while read -r image; do docker image rm -f "$image" >/dev/null; done
}

case "${1:-}" in
stand-ins)
    tag_of "$RUNTIME_IMAGE"
    tag_of "$BALANCER_IMAGE"
    nats
    ;;
antar)
    [[ $# -eq 3 ]] || fail "usage: deploy/images.sh antar BINARY TAG"
    antar "$2" "$3"
    ;;
remove) remove ;;
*) fail "usage: deploy/images.sh stand-ins | antar BINARY TAG | remove" ;;
esac
