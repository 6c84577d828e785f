#!/bin/sh
# Makes one package for Linux from the source at hand: dist/syncagent_VERSION_ARCH.deb, dist/syncagent-VERSION-1.ARCH.rpm or
# dist/syncagent-VERSION-linux-ARCH.tar.gz. Needs dpkg-deb, rpmbuild or GNU tar; nothing else, and no root. The same commit
# gives the same bytes.
#
# usage: configs/package.sh deb|rpm|tar VERSION GOARCH PROGRAM HOST_PROGRAM
# PROGRAM is packed; HOST_PROGRAM is the same for this machine, and writes completions and man pages.
set -eu
cd "$(dirname "$0")/.."
kind=$1 version=${2#v} arch=$3 program=$4 host=$5
case $version in [0-9]*.*) ;; *) version=0.0.0~$version ;; esac
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root" dist

put() { install -D -m "$1" "$2" "$root/$3"; }

summary='keeps values and files equal on many hosts'
description='One agent runs on every host. Any host may write what the policy allows; every
host ends up with the same data, as values and as files. Nobody is the leader.'

# stage lays the files out as they lie on a host. All kinds of package hold the same ones.
stage() {
	put 755 "$program" usr/bin/syncagent
	put 644 configs/syncagent.service usr/lib/systemd/system/syncagent.service
	put 644 configs/syncagent-mirror@.service usr/lib/systemd/system/syncagent-mirror@.service
	put 644 configs/syncagent.sysusers usr/lib/sysusers.d/syncagent.conf
	put 644 configs/syncagent.yaml etc/syncagent/syncagent.yaml
	for f in README.md CHANGELOG.md ARCHITECTURE.md SECURITY.md LICENSE configs/alerts.yml configs/dashboard.json docs/*.md docs/*.svg; do
		put 644 "$f" "usr/share/doc/syncagent/$(basename "$f")"
	done
	"$host" completion bash >"$work/bash"
	put 644 "$work/bash" usr/share/bash-completion/completions/syncagent
	"$host" completion zsh >"$work/zsh"
	put 644 "$work/zsh" usr/share/zsh/vendor-completions/_syncagent
	"$host" completion fish >"$work/fish"
	put 644 "$work/fish" usr/share/fish/vendor_completions.d/syncagent.fish
	"$host" completion powershell >"$work/ps1"
	put 644 "$work/ps1" usr/share/doc/syncagent/completion.ps1
	mkdir "$work/man"
	"$host" manpage "$work/man"
	for f in "$work"/man/*.1; do
		gzip -9n "$f"
		put 644 "$f.gz" "usr/share/man/man1/$(basename "$f").gz"
	done
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# What both package managers run. It is not started before init or join; an update restarts what runs.
after_install='if command -v systemd-sysusers >/dev/null; then systemd-sysusers syncagent.conf; fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi'
restart='if [ -d /run/systemd/system ]; then systemctl try-restart syncagent.service; fi'
before_remove='if [ -d /run/systemd/system ]; then systemctl disable --now syncagent.service || true; fi'
after_remove='if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
# Identity, admin key and data are the operator'\''s: they stay, even when the package is purged.'

pack_deb() {
	mkdir "$root/DEBIAN"
	cat >"$root/DEBIAN/control" <<END
Package: syncagent
Version: $version
Architecture: $arch
Maintainer: syncagent maintainers <maintainers@syncagent.invalid>
Section: admin
Priority: optional
Installed-Size: $(du -sk --apparent-size "$root" | cut -f1)
Description: $summary
$(echo "$description" | sed 's/^/ /')
END
	echo /etc/syncagent/syncagent.yaml >"$root/DEBIAN/conffiles"
	mv "$root/usr/share/doc/syncagent/LICENSE" "$work"
	cat >"$root/usr/share/doc/syncagent/copyright" <<END
Copyright: the authors of syncagent
License: Apache-2.0, see /usr/share/common-licenses/Apache-2.0
END
	script() { printf '#!/bin/sh\nset -e\n%s\n' "$2" >"$root/DEBIAN/$1" && chmod 755 "$root/DEBIAN/$1"; }
	script postinst "[ \"\$1\" = configure ] || exit 0
$after_install
[ -z \"\$2\" ] || { $restart; }"
	script prerm "[ \"\$1\" = remove ] || exit 0
$before_remove"
	script postrm "$after_remove"
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Zxz --build "$root" "dist/syncagent_${version}_$arch.deb"
}

pack_rpm() {
	case $arch in amd64) cpu=x86_64 ;; arm64) cpu=aarch64 ;; *) cpu=$arch ;; esac
	cat >"$work/syncagent.spec" <<END
Name: syncagent
Version: $(echo "$version" | tr - .)
Release: 1
Summary: $summary
License: Apache-2.0
AutoReqProv: no
%global _build_id_links none
%global __os_install_post %{nil}
%global _buildhost syncagent
%global use_source_date_epoch_as_buildtime 1
%global clamp_mtime_to_source_date_epoch 1
%description
$description
%post
$after_install
%preun
if [ \$1 -eq 0 ]; then $before_remove; fi
%postun
$after_remove
if [ \$1 -ge 1 ]; then $restart; fi
%files
%defattr(-,root,root)
%dir /etc/syncagent
%config(noreplace) /etc/syncagent/syncagent.yaml
$(cd "$root" && find usr -type f | sed -e 's|^|/|' -e 's|^/usr/share/doc/|%doc &|' | LC_ALL=C sort)
END
	rpmbuild --quiet -bb --target "$cpu" --buildroot "$root" --noclean --define "_topdir $work/rpm" --define "_rpmdir $work" \
		--define "_rpmfilename syncagent-%{VERSION}-%{RELEASE}.%{ARCH}.rpm" "$work/syncagent.spec"
	mv "$work"/*.rpm dist/
}

pack_tar() {
	tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - . |
		gzip -9n >"dist/syncagent-$version-linux-$arch.tar.gz"
}

stage
"pack_$kind"
