package keys

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// encryptedKeys are all that openssl pkcs8, genpkey and req write, but for what
// refusedKeys names.
func encryptedKeys() []string {
	names := []string{"p256-encrypted.pem", "p256-encrypted.der", "rsa-encrypted.pem", "req-newkey.pem"}
	for _, cipher := range []string{"aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des3"} {
		names = append(names, "genpkey-"+cipher+".pem")
		for _, derivation := range []string{"hmacWithSHA1", "hmacWithSHA256", "hmacWithSHA384", "hmacWithSHA512", "scrypt"} {
			names = append(names, "p256-"+cipher+"-"+derivation+".pem")
		}
	}
	return names
}

func plainKeys() []string {
	return []string{
		"p256-pkcs8.pem", "p256-pkcs8.der", "p256-traditional.pem", "p256-traditional.der", "ecparam.pem",
		"rsa-pkcs8.pem", "rsa-pkcs8.der", "rsa-traditional.pem", "rsa-traditional.der",
		"p256-and-certificate.pem", "p256-and-chain.pem",
	}
}

func TestOpenReadsWhatOpenSSLWrites(t *testing.T) {
	t.Parallel()
	encrypted := len(encryptedKeys())
	for i, name := range append(encryptedKeys(), plainKeys()...) {
		t.Run(name, func(t *testing.T) {
			asked := 0
			key, err := Open(context.Background(), filepath.Join("testdata/private", name), OpenOptions{Passphrase: answer(testPassphrase, &asked)})
			if err != nil {
				t.Fatal(err)
			}
			defer key.Close()
			if want := 0; i < encrypted && asked != 1 || i >= encrypted && asked != want {
				t.Errorf("the passphrase was asked for %d times", asked)
			}
			digest := sha256.Sum256([]byte("x"))
			if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
				t.Error(err)
			}
			kind, _, _ := strings.Cut(name, "-")
			if kind == "p256" || kind == "rsa" {
				if !publicKey(t, "private/"+kind+".pub").Equal(key.Public()) {
					t.Error("this is another key than the file's")
				}
			}
		})
	}
}

func TestOpenOfAnEncryptedKey(t *testing.T) {
	t.Parallel()
	for _, name := range encryptedKeys() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata/private", name)
			_, err := Open(context.Background(), path, OpenOptions{Passphrase: answer("a horse of another colour", nil)})
			if !errors.Is(err, ErrWrongPassphrase) {
				t.Fatal(err)
			}
			checkError(t, err, path, "wrong passphrase: give", "--passphrase-file")
			if holdsSecret(err.Error(), readTestdata(t, "private/"+name)) {
				t.Errorf("the error tells a secret: %v", err)
			}
			_, err = Open(context.Background(), path, OpenOptions{})
			checkError(t, err, path, "encrypted")

			refused := errors.New("no")
			var prompt string
			_, err = Open(context.Background(), path, OpenOptions{Passphrase: func(p string) ([]byte, error) { prompt = p; return nil, refused }})
			if !errors.Is(err, refused) {
				t.Errorf("the callback's error is lost: %v", err)
			}
			if prompt != "Passphrase for "+path+": " {
				t.Errorf("the prompt is %q", prompt)
			}
		})
	}
}

func TestOpenRefusesOtherKeysAndSaysWhatToDo(t *testing.T) {
	p256 := string(readTestdata(t, "private/p256-pkcs8.pem"))
	convert := "openssl pkcs8 -topk8 -v2 aes-256-cbc -in "
	tests := []struct {
		name string
		file string // in testdata; its content if text is empty
		text string
		want []string
	}{
		{name: "traditional encryption of RSA", file: "private/rsa-traditional-aes256.pem", want: []string{"not safe", convert}},
		{name: "traditional encryption of EC", file: "private/p256-traditional-aes256.pem", want: []string{"not safe", convert}},
		{name: "PBES1", file: "private/p256-pbes1.pem", want: []string{"PBES2", convert}},
		{name: "ARIA", file: "private/p256-aria.pem", want: []string{"neither AES nor triple DES", convert}},
		{name: "Ed25519", file: "private/ed25519.pem", want: []string{"use an RSA or ECDSA key"}},
		{name: "OpenSSH", file: "private/openssh.pem", want: []string{"ssh-keygen -p -m PKCS8"}},
		{name: "OpenPGP", file: "../openpgp/testdata/rsa.key.asc", want: []string{"OpenPGP", "--openpgp-key"}},
		{name: "PKCS 12", file: "private/p256.p12", want: []string{"openssl pkcs12 -in"}},
		{name: "public key", file: "private/p256.pub", want: []string{`no private key, only PEM of type ["PUBLIC KEY"]`}},
		{name: "certificate", file: "certificates/one.crt", want: []string{"--cert"}},
		{name: "certificate in DER", file: "certificates/one.der", want: []string{"no private key"}},
		{name: "two keys", text: p256 + p256, want: []string{"more than one private key"}},
		{name: "empty", text: " ", want: []string{"no private key"}},
		{name: "cut PEM", text: p256[:len(p256)/2], want: []string{"no private key that could be read"}},
		{name: "text", text: "key\n", want: []string{"neither PEM nor DER"}},
		{name: "too large", text: strings.Repeat("x", maxKeyFile+1), want: []string{"more than 1048576 bytes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join("testdata", tt.file)
			if tt.text != "" {
				path = writeFile(t, filepath.Join(t.TempDir(), "key"), []byte(tt.text))
			}
			_, err := Open(context.Background(), path, OpenOptions{Passphrase: answer(testPassphrase, nil)})
			checkError(t, err, append(tt.want, path)...)
			content, _ := os.ReadFile(path)
			if holdsSecret(err.Error(), content) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// A key that spells its curve out is one that kernels take, and so is told what to do.
func TestACurveThatIsSpelledOut(t *testing.T) {
	need(t, "openssl")
	dir := t.TempDir()
	path, named := filepath.Join(dir, "explicit.pem"), filepath.Join(dir, "named.pem")
	runOpenSSL(t, "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit", "-out", path)
	_, err := Open(t.Context(), path, OpenOptions{})
	checkError(t, err, path, "openssl ec -param_enc named_curve")
	runOpenSSL(t, "ec", "-param_enc", "named_curve", "-in", path, "-out", named)
	if _, err := Open(t.Context(), named, OpenOptions{}); err != nil {
		t.Error(err)
	}
}

// What a refusal advises is done, and the key can be read.
func TestTheConversionThatARefusalAdvisesWorks(t *testing.T) {
	need(t, "openssl")
	for _, name := range []string{"rsa-traditional-aes256.pem", "p256-traditional-aes256.pem", "p256-pbes1.pem", "p256-aria.pem", "p256.p12"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old := writeFile(t, filepath.Join(dir, "it's a key"), readTestdata(t, "private/"+name))
			_, err := Open(context.Background(), old, OpenOptions{Passphrase: answer(testPassphrase, nil)})
			checkError(t, err, " with openssl ")
			_, command, _ := strings.Cut(err.Error(), " with openssl ")
			cmd := exec.Command("sh", "-c", "openssl "+strings.TrimSuffix(command, "NEW")+"new -passin file:old-pass -passout file:new-pass")
			cmd.Dir = dir
			writeFile(t, filepath.Join(dir, "old-pass"), []byte(testPassphrase))
			writeFile(t, filepath.Join(dir, "new-pass"), []byte(testPassphrase))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
			key, err := Open(context.Background(), filepath.Join(dir, "new"), OpenOptions{Passphrase: answer(testPassphrase, nil)})
			if err != nil {
				t.Fatal(err)
			}
			if !publicKey(t, "private/"+strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '.' })[0]+".pub").Equal(key.Public()) {
				t.Error("another key came out")
			}
		})
	}
}

func TestOpenFindsTheCertificateOfTheKeyInTheFile(t *testing.T) {
	for name, want := range map[string]string{
		"p256-and-certificate.pem": "CN=one", "p256-and-chain.pem": "CN=one", "p256-pkcs8.pem": "",
	} {
		key, err := Open(context.Background(), "testdata/private/"+name, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if key.Certificate != nil {
			got = key.Certificate.Subject.String()
		}
		if got != want {
			t.Errorf("%s: certificate %q, want %q", name, got, want)
		}
	}
}

func TestOpenSaysWhenOthersCanReadTheKey(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "key"), readTestdata(t, "private/p256-pkcs8.pem"))
	for mode, open := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o700: false, 0o640: true, 0o604: true, 0o602: true, 0o620: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		key, err := Open(context.Background(), path, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if told := strings.Contains(key.Note, "chmod 600"); told != open {
			t.Errorf("mode %o: the note is %q", mode, key.Note)
		}
	}
}

func TestAReferenceSaysHowTheKeyIsOpened(t *testing.T) {
	t.Chdir(t.TempDir())
	key := "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
	for _, name := range []string{"plain", "odd:name", "pkcs11:token"} {
		writeFile(t, name, []byte(key))
	}
	for ref, want := range map[string]string{
		"plain":              "plain: this is no private key",
		"file:plain":         "plain: this is no private key",
		"file:odd:name":      "odd:name: this is no private key",
		"./odd:name":         "./odd:name: this is no private key",
		"odd:name":           "for a file of that name write ./odd:…",
		"pkcs11:token":       "pkcs11 URI: attribute token: it has no value",
		"gpg:0123456789":     "knows no keys of that kind, but paths and awskms:",
		"missing":            "open missing: no such file",
		"file:":              "no such file",
		".":                  "is a directory",
		"C:\\key":            "open C:\\key: no such file",
		"UPPER:not-a-scheme": "open UPPER:not-a-scheme: no such file",
	} {
		_, err := Open(context.Background(), ref, OpenOptions{})
		checkError(t, err, want)
	}
}
