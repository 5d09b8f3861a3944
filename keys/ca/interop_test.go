package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// checkWithTools has the key sign, and evmctl and openssl judge: a file signature by
// the certificate as kernels load it, and one over data by the public key.
func checkWithTools(t *testing.T, key *keys.Key, cert *x509.Certificate) {
	t.Helper()
	dir := t.TempDir()
	id, warning, err := keys.KeyID(cert, key.Public())
	if err != nil || warning != "" {
		t.Fatalf("%q, %v", warning, err)
	}
	signer, err := sign.NewSigner(key.Signer, id)
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("content")
	digest := sha256.Sum256(content)
	value, err := signer.SignDigest(sign.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	file, der := writeFile(t, filepath.Join(dir, "file"), content), writeFile(t, filepath.Join(dir, "cert.der"), cert.Raw)
	writeFile(t, file+".sig", value)
	run(t, "evmctl", "ima_verify", "--sigfile", "-k", der, file)
	writeFile(t, file, []byte("another"))
	if out, err := exec.Command("evmctl", "ima_verify", "--sigfile", "-k", der, file).CombinedOutput(); err == nil {
		t.Errorf("evmctl takes a tampered file: %s", out)
	}

	writeFile(t, file, content)
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := sign.ParseSignature(value)
	if err != nil || parsed.KeyID != id {
		t.Fatalf("key id %s, %v", parsed.KeyID, err)
	}
	public := writeFile(t, filepath.Join(dir, "public.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
	runOpenSSL(t, "dgst", "-sha256", "-verify", public, "-signature", writeFile(t, filepath.Join(dir, "sig"), parsed.Sig), file)
}

// The tools take signatures by every type of key, and the certificates that init,
// issue and renew make, and sign under the same key id.
func TestToolsTakeWhatIsMadeHere(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "evmctl")
	for _, keyType := range []string{"p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096"} {
		t.Run(keyType, func(t *testing.T) {
			if testing.Short() && keyType == "rsa4096" {
				t.Skip("making a large key takes long")
			}
			dir := t.TempDir()
			r := initKeys(t, InitOptions{Dir: filepath.Join(dir, "keys"), CADir: filepath.Join(dir, "ca"), Type: keyType})
			ca, err := Open(t.Context(), r.CAKey, r.CACert, keys.OpenOptions{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			path := r.Signing[0].Key
			key, err := keys.Open(t.Context(), path, keys.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			csr := filepath.Join(dir, "csr")
			if err := MakeRequest(t.Context(), RequestOptions{Key: key, Name: "x", Out: csr}); err != nil {
				t.Fatal(err)
			}
			issued, err := ca.Issue(t.Context(), IssueOptions{Request: loadRequest(t, csr), Out: filepath.Join(dir, "issued")})
			if err != nil {
				t.Fatal(err)
			}
			renewed, err := ca.Renew(t.Context(), RenewOptions{Old: issued.Cert})
			if err != nil {
				t.Fatal(err)
			}
			for _, made := range []KeyFiles{r.Signing[0], issued.KeyFiles, renewed.KeyFiles} {
				checkWithTools(t, key, made.Certificate)
				if id := evmctlKeyID(t, "-k", path, "--keyid-from-cert", made.DER); id != made.KeyID {
					t.Errorf("evmctl signs with key id %s, want %s", id, made.KeyID)
				}
				runOpenSSL(t, "verify", "-x509_strict", "-CAfile", r.CACert, made.Cert)
			}
		})
	}
}

// openssl's keys, as its commands and those of others write them, sign here.
func TestKeysOfOpenSSLSign(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "evmctl")
	// No comma in a name: evmctl would take it for the end of a path.
	for name, script := range map[string]string{
		"genpkey":                        `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key`,
		"SEC 1 ecparam":                  `openssl ecparam -name secp521r1 -genkey -out key`,
		"SEC 1 ecparam without params":   `openssl ecparam -name prime256v1 -genkey -noout -out key`,
		"SEC 1 DER":                      `openssl ecparam -name prime256v1 -genkey -noout -outform DER -out key`,
		"PKCS 1 genrsa":                  `openssl genrsa -traditional -out key 3072`,
		"PKCS 1 DER":                     `openssl genrsa -traditional 2048 | openssl rsa -traditional -outform DER -out key`,
		"PKCS 8 genrsa":                  `openssl genrsa -out key 2048`,
		"PKCS 8 AES SHA-256":             `openssl genrsa 2048 | openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -passout file:passphrase -out key`,
		"PKCS 8 AES scrypt":              `openssl genrsa 2048 | openssl pkcs8 -topk8 -v2 aes-256-cbc -scrypt -passout file:passphrase -out key`,
		"PKCS 8 AES DER":                 `openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -outform DER -passout file:passphrase -out key`,
		"PKCS 8 plain DER":               `openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -outform DER -out key`,
		"RSA of genpkey encrypted there": `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -aes-256-cbc -pass file:passphrase -out key`,
	} {
		t.Run(name, func(t *testing.T) {
			p := pki{Dir: t.TempDir()}
			writeFile(t, p.Path("passphrase"), []byte(testPassphrase))
			shell(t, p.Dir, script)
			key, err := keys.Open(t.Context(), p.Path("key"), keys.OpenOptions{Passphrase: answer(testPassphrase, nil)})
			if err != nil {
				t.Fatal(err)
			}
			// openssl's certificate of the key, and ours.
			p.Issue(t, "ca", "/CN=CA", "ca", caExtensions)
			shell(t, p.Dir, `openssl req -new -key key -passin file:passphrase -subj /CN=key -out csr
				openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile /dev/stdin -out theirs.crt <<end
`+leafExtensions+"end\n")
			ca, err := Open(t.Context(), p.Path("ca.key"), p.Path("ca.crt"), keys.OpenOptions{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			ours, err := ca.Issue(t.Context(), IssueOptions{Request: loadRequest(t, p.Path("key")), Name: "x", Out: p.Path("ours")})
			if err != nil {
				t.Fatal(err)
			}
			for _, cert := range []*x509.Certificate{loadCertificate(t, p.Path("theirs.crt")), ours.Certificate} {
				checkWithTools(t, key, cert)
				if err := keys.ChainsTo(cert, []*x509.Certificate{ca.Certificate}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// shell runs a script as users do, without a terminal: openssl then takes passphrases
// from the standard input.
func shell(t testing.TB, dir, script string, input ...string) {
	t.Helper()
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(strings.Join(input, "\n") + "\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// TestKeysOfEvmctlsExamples runs the scripts that ima-evm-utils ships. They make keys
// of 1024 bits and use SHA-1; such keys are refused. With these two words changed all
// that they make is good.
func TestKeysOfEvmctlsExamples(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "evmctl")
	const examples = "/usr/share/doc/ima-evm-utils/examples"
	if _, err := os.Stat(examples); err != nil {
		t.Skipf("%v: this system leaves documentation out", err)
	}
	const passphrase = "of their CA"
	scene := func(t *testing.T, change string) pki {
		p := pki{Dir: t.TempDir()}
		for _, script := range []string{"ima-gen-local-ca.sh", "ima-genkey.sh", "ima-genkey-self.sh"} {
			shell(t, p.Dir, "sed '"+change+"' "+examples+"/"+script+" >"+script+"; sh ./"+script, passphrase, passphrase)
		}
		return p
	}
	t.Run("as shipped", func(t *testing.T) {
		p := scene(t, "")
		for _, name := range []string{"privkey_ima.pem", "privkey_evm.pem"} {
			key, err := keys.Open(t.Context(), p.Path(name), keys.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = sign.NewSigner(key.Signer, 1)
			checkError(t, err, "1024 bits is too short")
		}
		_, err := LoadRequest(t.Context(), p.Path("csr_ima.pem"), keys.OpenOptions{})
		checkError(t, err, "1024 bits is too short")
	})
	t.Run("of today", func(t *testing.T) {
		p := scene(t, "s/default_bits = 1024/default_bits = 2048/; s/-sha1/-sha256/")
		for name, cert := range map[string]string{"privkey_ima.pem": "x509_ima.der", "privkey_evm.pem": "x509_evm.der"} {
			key, err := keys.Open(t.Context(), p.Path(name), keys.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			checkWithTools(t, key, loadCertificate(t, p.Path(cert)))
		}
		if err := keys.ChainsTo(loadCertificate(t, p.Path("x509_ima.der")), certificates(t, p.Path("ima-local-ca.pem"))); err != nil {
			t.Error(err)
		}

		// Their CA issues here, and our CA issues for their request.
		theirs, err := Open(t.Context(), p.Path("ima-local-ca.priv"), p.Path("ima-local-ca.x509"), keys.OpenOptions{Passphrase: answer(passphrase, nil)}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(theirs.Note, ".machine") {
			t.Errorf("their CA has no key usage; the note is %q", theirs.Note)
		}
		for ca, file := range map[*Authority]string{theirs: p.Path("ima-local-ca.pem"), testCA(t, p.Dir): p.Path("ca/ca.crt")} {
			out := filepath.Join(t.TempDir(), "out")
			made, err := ca.Issue(t.Context(), IssueOptions{Request: loadRequest(t, p.Path("csr_ima.pem")), Out: out})
			if err != nil {
				t.Fatal(err)
			}
			runOpenSSL(t, "verify", "-CAfile", file, made.Cert)
			if !strings.HasSuffix(made.Certificate.Subject.CommonName, " signing key") {
				t.Errorf("the subject is %q", made.Certificate.Subject)
			}
		}
	})
}

// kernelConfig makes what a kernel's build makes for certs/signing_key.pem.
const kernelConfig = `[ req ]
default_bits = 2048
distinguished_name = req_distinguished_name
prompt = no
string_mask = utf8only
x509_extensions = myexts
[ req_distinguished_name ]
CN = Build time key
[ myexts ]
basicConstraints=critical,CA:FALSE
keyUsage=digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
`

// A kernel's build has key and certificate in one file; Debian's Machine Owner Keys
// are a key and a certificate of a CA in DER.
func TestKeysOfKernelBuilds(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "evmctl")
	p := pki{Dir: t.TempDir()}
	writeFile(t, p.Path("x509.genkey"), []byte(kernelConfig))
	shell(t, p.Dir, `openssl req -new -nodes -utf8 -sha256 -days 36500 -batch -x509 -config x509.genkey \
		-outform PEM -out signing_key.pem -keyout signing_key.pem`)
	key, err := keys.Open(t.Context(), p.Path("signing_key.pem"), keys.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if key.Certificate == nil {
		t.Fatal("the certificate in the file is not found")
	}
	checkWithTools(t, key, key.Certificate)
	id, _, err := keys.KeyID(key.Certificate, key.Public())
	if theirs := evmctlKeyID(t, "-k", p.Path("signing_key.pem")); err != nil || theirs != id {
		t.Errorf("evmctl signs with key id %s, want %s, %v", theirs, id, err)
	}
	ca := testCA(t, p.Dir)
	renewed, err := ca.Renew(t.Context(), RenewOptions{Old: p.Path("signing_key.pem")})
	if err != nil {
		t.Fatal(err)
	}
	if renewed.KeyID != id || renewed.Cert != p.Path("signing_key-2.crt") {
		t.Errorf("renewed it is %+v", renewed.KeyFiles)
	}

	shell(t, p.Dir, `openssl req -nodes -new -x509 -newkey rsa:2048 -keyout MOK.priv -outform DER -out MOK.der -days 36500 -subj "/CN=My Name/"`)
	mok, err := Open(t.Context(), p.Path("MOK.priv"), p.Path("MOK.der"), keys.OpenOptions{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	made, err := mok.Issue(t.Context(), IssueOptions{Request: &Request{PublicKey: key.Public()}, Name: "x", Out: p.Path("by-mok")})
	if err != nil {
		t.Fatal(err)
	}
	checkWithTools(t, key, made.Certificate)
	owner, err := keys.Open(t.Context(), p.Path("MOK.priv"), keys.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checkWithTools(t, owner, loadCertificate(t, p.Path("MOK.der")))
	checkError(t, keys.ChainsTo(loadCertificate(t, p.Path("MOK.der")), []*x509.Certificate{mok.Certificate}), "kernels refuse it in .ima")
}
