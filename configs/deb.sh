#!/bin/sh
# Makes dist/syncagent_VERSION_ARCH.deb of bin/syncagent with dpkg-deb alone. The same commit gives the same bytes.
# usage: configs/deb.sh VERSION
set -eu
cd "$(dirname "$0")/.."
version=${1#v}
case $version in [0-9]*) ;; *) version=0.0.0~$version ;; esac
arch=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 bin/syncagent usr/bin/syncagent
put 644 configs/syncagent.service usr/lib/systemd/system/syncagent.service
put 644 configs/syncagent.sysusers usr/lib/sysusers.d/syncagent.conf
put 644 configs/syncagent.yaml etc/syncagent/syncagent.yaml
for f in README.md CHANGELOG.md configs/alerts.yml configs/dashboard.json docs/*.md; do
	put 644 "$f" "usr/share/doc/syncagent/$(basename "$f")"
done
put 644 LICENSE usr/share/doc/syncagent/copyright
bin/syncagent completion bash >"$root/bash"
put 644 "$root/bash" usr/share/bash-completion/completions/syncagent
bin/syncagent completion zsh >"$root/zsh"
put 644 "$root/zsh" usr/share/zsh/vendor-completions/_syncagent
bin/syncagent completion fish >"$root/fish"
put 644 "$root/fish" usr/share/fish/vendor_completions.d/syncagent.fish
rm "$root/bash" "$root/zsh" "$root/fish"

chmod 755 "$root"
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<EOF
Package: syncagent
Version: $version
Architecture: $arch
Maintainer: syncagent maintainers <maintainers@syncagent.invalid>
Section: admin
Priority: optional
Installed-Size: $(du -sk --apparent-size "$root" | cut -f1)
Description: keeps values and files equal on many hosts
 One agent runs on every host. Any host may write what the policy allows; every
 host ends up with the same data, as values and as files. Nobody is the leader.
EOF
echo /etc/syncagent/syncagent.yaml >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/postinst" <<'EOF'
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
if command -v systemd-sysusers >/dev/null; then systemd-sysusers syncagent.conf; fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# It is not started before init or join; an update restarts what runs.
	if [ -n "$2" ]; then systemctl try-restart syncagent.service; fi
fi
EOF
cat >"$root/DEBIAN/prerm" <<'EOF'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now syncagent.service || true; fi
EOF
cat >"$root/DEBIAN/postrm" <<'EOF'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
# Identity, admin key and data are the operator's: they stay even when the package is purged.
EOF
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p dist
dpkg-deb --root-owner-group -Zxz --build "$root" "dist/syncagent_${version}_${arch}.deb"
