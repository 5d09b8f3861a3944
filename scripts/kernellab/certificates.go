package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	judging "github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/scripts/kernellab/plan"
	"github.com/imaseal/imaseal/sign"
)

// madeCertificates makes, in the folder $1, keys and certificates by imaseal's commands
// and by openssl: of the CA in folder $2 by the command $3, and of others. Each is a
// file NAME.crt beside NAME.key.
const madeCertificates = `set -e
cd "$1"
ca=$2 imaseal=$3
take() { # FOLDER NAME: what a command made in FOLDER is called NAME from now on
	mv "$1/signing.key" "$2.key"
	mv "$1/signing.crt" "$2.crt"
}
for type in p256 p384 p521 rsa2048 rsa3072 rsa4096; do
	$imaseal keys init --dir "init-$type" --ca-dir "$ca" --type $type --no-passphrase >/dev/null
	take "init-$type" "init $type"
done
for type in rsa:2048 ec; do
	name="issued ${type%:*}"
	openssl req -new -newkey $type $(test $type = ec && echo -pkeyopt ec_paramgen_curve:P-256) -nodes -subj "/CN=a team" -keyout "$name.key" -out request.pem 2>/dev/null
	$imaseal keys issue --ca-key "$ca/ca.key" --ca-cert "$ca/ca.crt" --out "$name.crt" request.pem >/dev/null
done
cp "init p256.crt" renewed.crt
cp "init p256.key" "renewed.key"
$imaseal keys renew --ca-key "$ca/ca.key" --ca-cert "$ca/ca.crt" --out again renewed.crt >/dev/null
mv again.crt renewed.crt
$imaseal keys renew --new-key --no-passphrase --ca-key "$ca/ca.key" --ca-cert "$ca/ca.crt" --out "renewed with a new key" renewed.crt >/dev/null

openssl req -new -newkey rsa:2048 -nodes -subj "/CN=openssl" -keyout openssl.key -out request.pem 2>/dev/null
printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' >extensions
openssl x509 -req -in request.pem -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -days 365 -extfile extensions -out openssl.crt 2>/dev/null

# Of another CA; of one that is called like the laboratory's; of none.
$imaseal keys init --dir stranger --no-passphrase >/dev/null
take stranger "of a stranger's CA"
$imaseal keys init --dir namesake --name "kernel laboratory" --no-passphrase >/dev/null
take namesake "of a CA of the same name"
openssl req -x509 -newkey rsa:2048 -nodes -subj "/CN=nobody" -days 365 -addext keyUsage=digitalSignature -addext basicConstraints=critical,CA:FALSE -keyout "signed by itself.key" -out "signed by itself.crt" 2>/dev/null
`

// keyringsAgree is case 10: certificates that imaseal made get into the kernel's
// keyring and their keys verify, and whatever "keys show" says of a certificate, the
// kernel does with it.
func (s *scene) keyringsAgree(ctx context.Context) error {
	if !s.kernel.path {
		return skip("its keyring takes any certificate")
	}
	authority, err := s.lab.ca()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := s.lab.run(ctx, "", nil, "sh", "-c", madeCertificates, "sh", dir, filepath.Dir(authority.file), s.lab.imaseal); err != nil {
		return err
	}
	made, err := filepath.Glob(filepath.Join(dir, "*.crt"))
	if err != nil || len(made) != 14 {
		return fmt.Errorf("%d certificates were made: %w", len(made), err)
	}
	_, odd, err := s.lab.signingKeys()
	if err != nil {
		return err
	}
	all := odd
	for _, cert := range made {
		path := strings.TrimSuffix(cert, ".crt")
		all = append(all, signingKey{name: filepath.Base(path), key: path + ".key", cert: cert})
	}
	for _, key := range all {
		if err := s.keyringAgrees(ctx, key, authority.file); err != nil {
			return fmt.Errorf("certificate %s: %w", key.name, err)
		}
	}
	return nil
}

// keyringAgrees adds two checks: that the kernel takes the certificate or not, as
// imaseal says, and that it runs a file that the key signed or not.
func (s *scene) keyringAgrees(ctx context.Context, key signingKey, authority string) error {
	worst, err := s.lab.judged(ctx, key.cert, authority)
	if err != nil {
		return err
	}
	taken, runs := plan.Allowed, plan.Allowed
	switch worst {
	case judging.Refused:
		taken, runs = plan.Denied, plan.Denied
	case judging.Useless:
		runs = plan.Denied
	}
	cert, err := readCertificate(key.cert)
	if err != nil {
		return err
	}
	content := []byte("#!/bin/sh\n# " + key.name + "\n")
	label, err := signFile(ctx, key, sign.SHA256, content)
	if err != nil {
		return err
	}
	path := "/lab/keys/" + key.name
	if err := s.place(path, content, label); err != nil {
		return err
	}
	s.files["/case-10/"+key.name+".der"] = cert.Raw
	s.change(10, "certificate "+key.name, taken, plan.KeyChange{Keyring: s.kernel.keyring, File: "/case-10/" + key.name + ".der", Name: "case 10 " + key.name})
	s.run(10, "a file by "+key.name, runs, path)
	return nil
}

// judged returns the worst that "keys show" says of a certificate as one that signs
// files, "" for nothing. One that it takes for a CA's is none.
func (l *lab) judged(ctx context.Context, cert, authority string) (judging.Severity, error) {
	text, err := l.output(ctx, "", l.imaseal, "keys", "show", "--json", "--ca", authority, cert)
	if err != nil {
		return "", err
	}
	var shown struct {
		Certificate struct{ Role string }
		Problems    []struct{ Severity judging.Severity }
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&shown); err != nil {
		return "", fmt.Errorf("keys show printed %q: %w", text, err)
	}
	if shown.Certificate.Role != "signs files" {
		return judging.Refused, nil
	}
	for _, severity := range []judging.Severity{judging.Refused, judging.Useless, judging.Notice} {
		if slices.ContainsFunc(shown.Problems, func(p struct{ Severity judging.Severity }) bool { return p.Severity == severity }) {
			return severity, nil
		}
	}
	return "", nil
}
