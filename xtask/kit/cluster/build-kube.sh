#!/usr/bin/env bash
# Build Kubernetes 1.20.2 from Debian bookworm's source package and collect the
# container runtime from Debian's binary packages, without installing any of it.
#
#   build-kube.sh [--cached]      (--cached: only say whether it is there)
#
# The result's directory is $L7EGG_CACHE/kube/<hash> (L7EGG_CACHE defaults to
# ~/.cache/l7egg), where the hash covers the recipe and the versions. It gets
#   bin/  kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy
#         kubectl etcd containerd containerd-shim-runc-v2 ctr runc pause
#   cni/  bridge host-local loopback portmap ... (the CNI plugins)
# The only line on standard output is that directory; progress goes to standard error.
# Two builds at a time wait for one another.
#
# Needs: a Debian 12 host whose apt sources reach bookworm main (`apt-get update`
# done once), dpkg-dev, a C compiler with static libc (for the pause binary),
# about 4 GB of temporary disk. Takes 3 to 5 minutes on two cores when cold.
set -euo pipefail

KUBE_DEB=${KUBE_DEB:-1.20.5+really1.20.2-1.1+deb12u1}   # Debian's version; upstream is 1.20.2
KUBE_VERSION=1.20.2
KUBE_COMMANDS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)
# bookworm's Go, which needs a newer reflect2 than the vendored one (that one predates
# Go 1.18's change of the map iterator).
TOOL_DEBS=(golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev)
RUN_DEBS=(etcd-server containerd runc containernetworking-plugins)

log() { printf '[build-kube +%ds] %s\n' "$SECONDS" "$*" >&2; }
die() { log "error: $*"; exit 1; }

version_hash() {   # changes with the wanted versions and with what the recipe does, not with its comments
  { declare -f fetch prepare_source compile collect
    echo "$KUBE_DEB ${KUBE_COMMANDS[*]} ${TOOL_DEBS[*]} ${RUN_DEBS[*]}"; } | sha256sum | cut -c1-12
}

fetch() {   # into $W: the kubernetes source package, and the binary packages unpacked below $W/root
  local mirror
  # deb-src is rarely enabled, so use a private source list with the mirror that apt already uses.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Release: bookworm' 'Component: main' | sort -u | head -1)
  [ -n "$mirror" ] || die "no bookworm main in the apt sources (run apt-get update?)"
  mkdir -p "$W"/{lists/partial,cache/archives/partial,debs,root}
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >"$W/sources.list"
  local src=(apt-get -qq -o Dir::Etc::sourcelist="$W/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$W/lists"
             -o Dir::Cache="$W/cache" -o APT::Sandbox::User=root)
  (cd "$W" && "${src[@]}" update && "${src[@]}" source --download-only "kubernetes=$KUBE_DEB") >&2
  (cd "$W/debs" && apt-get -qq -o APT::Sandbox::User=root download "${TOOL_DEBS[@]}" "${RUN_DEBS[@]}") >&2
  local deb; for deb in "$W"/debs/*.deb; do dpkg-deb -x "$deb" "$W/root"; done
}

prepare_source() {   # unpack into a GOPATH and re-create what Debian's tarball leaves out
  mkdir -p "$GOPATH/src/k8s.io"
  dpkg-source --no-check -x "$W"/kubernetes_*.dsc "$SRC" >/dev/null 2>&1
  cd "$SRC"
  rm -rf vendor/github.com/modern-go/reflect2
  cp -a "$W/root/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go/
  # The tarball has no generated OpenAPI definitions, and kube-apiserver imports them.
  local dirs
  dirs=$(grep -rl --include='*.go' '^// *+k8s:openapi-gen=' staging/src/k8s.io pkg cmd plugin |
         grep -v -e code-generator -e sample- -e _test.go -e /testdata/ | xargs -n1 dirname |
         sed 's,^staging/src/,vendor/,; s,^,k8s.io/kubernetes/,' | LC_ALL=C sort -u | paste -sd,)
  go build -o "$W/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  "$W/openapi-gen" --logtostderr -i "$dirs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r /dev/null >"$W/openapi-gen.log" 2>&1 ||
    { tail -5 "$W/openapi-gen.log" >&2; die "openapi-gen failed"; }
}

compile() {
  local p ld="-s -w"
  for p in component-base/version client-go/pkg/version; do
    p=k8s.io/kubernetes/vendor/k8s.io/$p
    ld+=" -X $p.gitVersion=v$KUBE_VERSION -X $p.gitMajor=1 -X $p.gitMinor=20 -X $p.gitTreeState=clean -X $p.buildDate=2021-01-13T00:00:00Z"
  done
  # All at once: one program's linking, which uses one processor, goes along with the others' compilation.
  # Without the cloud providers and dockershim, which take a third of the time and are of no use here.
  go build -trimpath -tags providerless,dockerless -ldflags "$ld" -o "$W/out/bin/" "${KUBE_COMMANDS[@]/#/./cmd/}"
  "${CC:-cc}" -Os -static -DVERSION=$KUBE_VERSION -o "$W/out/bin/pause" build/pause/linux/pause.c 2>/dev/null ||
    "${CC:-cc}" -Os -static -DVERSION=$KUBE_VERSION -o "$W/out/bin/pause" build/pause/pause.c
}

collect() {   # runtime binaries straight from Debian's packages
  local r=$W/root
  cp "$r"/usr/bin/{etcd,containerd,containerd-shim-runc-v2,ctr} "$r/usr/sbin/runc" "$W/out/bin/"
  cp "$r"/usr/lib/cni/{bridge,host-local,loopback,portmap,ptp,firewall,tuning,static} "$W/out/cni/"
  (cd "$W/debs"; printf '%s\n' kubernetes_"$KUBE_DEB" *.deb) >"$W/out/VERSIONS"
}

OUT=${L7EGG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/l7egg}/kube/$(version_hash)
present() { [ -e "$OUT/VERSIONS" ]; }
if present; then echo "$OUT"; exit 0; fi
if [ "${1:-}" = --cached ]; then exit 1; fi
for tool in dpkg-source apt-get "${CC:-cc}"; do command -v "$tool" >/dev/null || die "$tool is missing; run: cargo xtask setup"; done

mkdir -p "$(dirname "$OUT")"
exec 9>"$(dirname "$OUT")/lock"
flock 9
if present; then echo "$OUT"; exit 0; fi
log "Kubernetes $KUBE_VERSION is not in the cache: building it once, 3 to 5 minutes"
rm -rf "$(dirname "$OUT")"/*.tmp.*   # left by a build that was killed; the lock says that none runs
W=$(mktemp -d "$OUT.tmp.XXXXXX")   # beside OUT, so that the final rename is atomic
trap 'chmod -R u+w "$W" 2>/dev/null; rm -rf "$W"' EXIT
mkdir -p "$W/out/bin" "$W/out/cni"
export GOROOT=$W/root/usr/lib/go-1.19 GOPATH=$W/gopath GOCACHE=$W/gocache
export GO111MODULE=off CGO_ENABLED=0 GOPROXY=off GOTOOLCHAIN=local PATH=$GOROOT/bin:$PATH
unset GOFLAGS
SRC=$GOPATH/src/k8s.io/kubernetes

log "downloading packages";  fetch
log "preparing the source";  prepare_source
log "compiling";             compile
collect
mv -T "$W/out" "$OUT"
log "done: $OUT"
echo "$OUT"
