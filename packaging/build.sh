#!/bin/sh
# Builds one package into target/packages: `build.sh cargo|static|wheel|sdist|npm|deb`. The Makefile says with which tools.
# Each name of a file there has the version in it; what an earlier run left of the same package is removed first.
set -eu
kind=${1:?usage: build.sh cargo|static|wheel|sdist|npm|deb}
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
tools=${TOOLS:?the directory with maturin and cargo-deb}
out=$target/packages
# The machine as musl's target, as Python and as Node name it.
machine=$(uname -m)
static=$machine-unknown-linux-musl
case $machine in
x86_64) node=linux-x64 ;;
aarch64) node=linux-arm64 ;;
*) echo "no packages are built on $machine yet: x86_64 and aarch64 have a name in every format" >&2; exit 1 ;;
esac
mkdir -p "$out"
# A package holds no names of functions, which only a debugger asks for: a panic says its file and line all the same. Whoever
# builds from source has them. (cargo-deb strips by itself.)
stripped() { CARGO_PROFILE_RELEASE_STRIP=true "$@"; }

# One binary that runs on any Linux, whatever its libc: for itself, the wheel and npm.
static() {
	command -v musl-gcc >/dev/null || { echo "install musl-gcc first (Debian: apt install musl-tools)" >&2; exit 1; }
	rustup target list --installed | grep -qx "$static" || rustup target add "$static"
	stripped "$cargo" build --release --locked --target "$static" --bin agent-wormhole
}

# What a package for a distribution has besides the binary, made by that binary.
beside() {
	made=$target/release/packaging
	rm -rf "$made"
	mkdir -p "$made"
	"$target/release/agent-wormhole" man --dir "$made/man"
	gzip -9n "$made"/man/*.1
	for shell in bash zsh fish; do
		"$target/release/agent-wormhole" completions $shell >"$made/agent-wormhole.$shell"
	done
	gzip -9n <CHANGELOG.md >"$made/changelog.gz"
}

case $kind in
cargo)
	# Nothing of its own: the smoke test runs `cargo install` itself.
	"$cargo" build --release --locked --bin agent-wormhole
	;;
static)
	static
	rm -f "$out"/agent-wormhole-*-linux-"$machine".tar.gz
	version=$("$target/$static/release/agent-wormhole" --version | cut -d' ' -f2)
	name=agent-wormhole-$version-linux-$machine
	# The same bytes from the same binary: sorted, without owners, with one time.
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	mkdir "$work/$name"
	cp LICENSE README.md SECURITY.md "$target/$static/release/agent-wormhole" "$work/$name/"
	"$target/$static/release/agent-wormhole" man --dir "$work/$name/man"
	tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime=@0 -c "$name" |
		gzip -9n >"$out/$name.tar.gz"
	;;
wheel)
	static
	rm -f "$out"/agent_wormhole-*.whl
	# Static, so both families of Linux wheels are true of it.
	stripped "$tools/bin/maturin" build --release --target "$static" --compatibility manylinux2014 musllinux_1_1 --out "$out"
	;;
sdist)
	rm -f "$out"/agent_wormhole-*.tar.gz
	"$tools/bin/maturin" sdist --out "$out"
	;;
npm)
	static
	rm -f "$out"/agent-wormhole-*.tgz
	node packaging/npm/pack.mjs "$out" "$node=$target/$static/release/agent-wormhole"
	;;
deb)
	"$cargo" build --release --locked --bin agent-wormhole
	beside
	rm -f "$out"/agent-wormhole_*.deb
	PATH="$tools/bin:$PATH" "$cargo" deb --no-build --locked --output "$out/" \
		${DEB_MAINTAINER:+--maintainer "$DEB_MAINTAINER"}
	;;
*) echo "there is no package $kind" >&2; exit 2 ;;
esac
