#!/bin/sh
# Makes the packages in this folder anew: as root, with rpmbuild, gpg, openssl and what scripts/peers builds.
# Call: rpm/testdata/make.sh
set -eu
cd "$(dirname "$0")"
scripts=../../scripts
work=$(mktemp -d)
trap 'gpgconf --homedir "$work/gpg" --kill all 2>/dev/null || true; rm -rf "$work"' EXIT
forky=$("$scripts/forky-root")
sign418=$("$scripts/peers" rpm418)/bin/rpmsign
sign61=$("$scripts/peers" rpm61)

define() { # OPTION...: rpmbuild with what must not depend on the machine
    "$@" -bb --define "_buildhost localhost" --define "_topdir $top" --define "source_date_epoch_from_changelog 0" \
        --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" "$spec" >&2
}
export SOURCE_DATE_EPOCH=1700000000

top=$work/top spec=test.spec
define rpmbuild
cp "$top"/RPMS/noarch/test-1-2.noarch.rpm v4-gzip.rpm

mkdir "$forky/tmp/golden"
trap 'gpgconf --homedir "$work/gpg" --kill all 2>/dev/null || true; rm -rf "$work" "$forky/tmp/golden"' EXIT
cp test.spec "$forky/tmp/golden/"
top=/tmp/golden/top spec=/tmp/golden/test.spec
define chroot "$forky" rpmbuild --define "_rpmformat 6"
cp "$forky"/tmp/golden/top/RPMS/noarch/test-1-2.noarch.rpm v6-zstd.rpm

mkdir -m 700 "$work/gpg"
export GNUPGHOME=$work/gpg
gpg --batch --quiet --passphrase '' --quick-gen-key 'Test <test@example.com>' rsa2048 sign 0
openssl genrsa -out "$work/key" 2048
openssl rsa -in "$work/key" -pubout -out signed.pub
cp v4-gzip.rpm v4-rpmsign418.rpm
"$sign418" -D '_gpg_name test@example.com' --signfiles --fskpath="$work/key" --addsign v4-rpmsign418.rpm
cp v6-zstd.rpm v6-rpmsign61.rpm
"$sign61" -D '_openpgp_sign gpg' -D '_openpgp_sign_id test@example.com' --signfiles --fskpath="$work/key" \
    --addsign v6-rpmsign61.rpm
