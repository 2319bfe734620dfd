#!/usr/bin/env bash
# A stand-in for Airbyte's connector base, for machines that can pull no image: Debian bookworm with Python 3.11, a user
# `airbyte` (1000) and the real base's folders, from Debian's packages only. It is for tests of our own layers; what is
# released is built on the real base.
#
#   docker/stand-in-base.sh TAG
#
# Needs root, debootstrap and an engine. Mirror, certificates and pip's settings are this machine's, read when it runs;
# they go into this local image only.
set -euo pipefail
tag=${1:?a tag for the image}
work=$(mktemp -d /var/tmp/stand-in-base.XXXXXX)
trap 'rm -rf "$work"' EXIT
root=$work/root
packages=ca-certificates,netbase,tzdata,python3,python3-pip,python3-venv

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
debootstrap --variant=minbase --include="$packages" bookworm "$root" "${mirror%/}" >"$work/log" 2>&1 || {
  tail -5 "$work/log" >&2
  exit 1
}
cat "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" >"$root/etc/ssl/certs/ca-certificates.crt"
{
  echo '[global]'
  python3 -m pip config list 2>/dev/null | sed -n "s/^global\.\(index-url\|trusted-host\)='\(.*\)'\$/\1 = \2/p"
  echo 'cert = /etc/ssl/certs/ca-certificates.crt'
  echo 'disable-pip-version-check = true'
} >"$root/etc/pip.conf"
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
ln -sf python3 "$root/usr/bin/python"
chroot "$root" /usr/sbin/groupadd --gid 1000 airbyte
chroot "$root" /usr/sbin/useradd --uid 1000 --gid 1000 --no-create-home --shell /usr/sbin/nologin airbyte
install -d -m 755 -o 1000 -g 1000 "$root/airbyte" "$root/airbyte/integration_code"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/* "$root"/usr/share/{doc,man,locale}/*
tar --directory "$root" --one-file-system --create . | docker import \
  --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
  --change 'WORKDIR /airbyte/integration_code' --change 'CMD ["python3"]' - "$tag" >/dev/null
