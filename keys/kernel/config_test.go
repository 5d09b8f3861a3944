package kernel

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const trustedConfig = `#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.12.48 Kernel Configuration
#
CONFIG_IMA=y
CONFIG_IMA_APPRAISE=y
CONFIG_INTEGRITY_SIGNATURE=y
CONFIG_INTEGRITY_ASYMMETRIC_KEYS=y
CONFIG_INTEGRITY_TRUSTED_KEYRING=y
CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y
CONFIG_INTEGRITY_MACHINE_KEYRING=y
# CONFIG_IMA_BLACKLIST_KEYRING is not set
CONFIG_IMA_LOAD_X509=y
CONFIG_IMA_X509_PATH="/etc/keys/x509_\"ima\".der"
CONFIG_CRYPTO_RSA=y
CONFIG_CRYPTO_ECDSA=m
CONFIG_CRYPTO_SHA512=y
CONFIG_CC_VERSION_TEXT="gcc (Debian = 14)"
CONFIG_HZ=250
`

// debian12 is what its kernel has of what matters.
const debian12 = `# Linux/x86 6.1.140 Kernel Configuration
CONFIG_IMA=y
CONFIG_IMA_APPRAISE=y
CONFIG_INTEGRITY_SIGNATURE=y
CONFIG_INTEGRITY_ASYMMETRIC_KEYS=y
# CONFIG_INTEGRITY_TRUSTED_KEYRING is not set
CONFIG_INTEGRITY_MACHINE_KEYRING=y
CONFIG_CRYPTO_RSA=y
CONFIG_CRYPTO_SHA512=m
# CONFIG_CRYPTO_ECDSA is not set
`

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := ReadConfig(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReadConfig(t *testing.T) {
	c := parsed(t, trustedConfig)
	if c.Version != (Version{6, 12}) {
		t.Errorf("version %s", c.Version)
	}
	if !c.Has("CRYPTO_ECDSA") || !c.Has("IMA") || c.Has("IMA_BLACKLIST_KEYRING") || c.Has("HZ") {
		t.Error("y and m are on, everything else is not")
	}
	if got := c.X509Path(); got != `/etc/keys/x509_"ima".der` {
		t.Errorf("the kernel loads %s", got)
	}
	if got := TargetOf(c); got.Keyring() != ".ima" || !slices.Equal(got.Vouchers(), []string{ringBuiltin, ringSecondary, ringMachine}) {
		t.Errorf("%s, on the word of %q", got.Keyring(), got.Vouchers())
	}
	builtinOnly := TargetOf(parsed(t, strings.Replace(trustedConfig, "CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n", "", 1)))
	if got := builtinOnly.Vouchers(); !slices.Equal(got, []string{ringBuiltin}) {
		t.Errorf("on the word of %q", got)
	}
	c = parsed(t, debian12)
	if got := TargetOf(c); got.Keyring() != "_ima" || got.Vouchers() != nil || c.X509Path() != "" {
		t.Errorf("Debian 12 has %s, %q, %q", got.Keyring(), got.Vouchers(), c.X509Path())
	}
}

func TestReadConfigCompressed(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(debian12))
	z.Close()
	c, err := ReadConfig(&packed)
	if err != nil || !c.Has("IMA") {
		t.Errorf("%v, %v", c, err)
	}

	packed.Reset()
	z = gzip.NewWriter(&packed)
	for range 200 {
		z.Write(bytes.Repeat([]byte("#\n"), maxConfig/200))
	}
	z.Close()
	if _, err := ReadConfig(&packed); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a configuration that unpacks to too much gives %v", err)
	}
}

func TestReadConfigRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":         "",
		"comments only":   "# Linux/x86 6.1 Kernel Configuration\n",
		"other text":      "PRETTY_NAME=\"Debian\"\n",
		"a long line":     "CONFIG_A=" + strings.Repeat("x", maxConfigLine) + "\n",
		"binary":          "\x7fELF\x02\x01\x01",
		"half a gzip":     "\x1f\x8b\x08",
		"too much of it":  strings.Repeat("#\n", maxConfig/2+1),
		"no option there": "CONFIG_=y\n",
	} {
		if _, err := ReadConfig(strings.NewReader(text)); err == nil {
			t.Errorf("%s is read as a configuration", name)
		}
	}
}

func TestFindConfigs(t *testing.T) {
	dir := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("boot/config-6.1.0-40-amd64", debian12)
	put("boot/vmlinuz-6.1.0-40-amd64", "kernel")
	put("usr/lib/modules/6.12.48+deb13-amd64/config", strings.Replace(trustedConfig, "# Linux", "# linux", 1))
	put("usr/lib/modules/6.1.0-40-amd64/config", trustedConfig) // the same kernel again
	if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	found, err := FindConfigs(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range found {
		got = append(got, c.Release+" "+c.Version.String()+" "+TargetOf(c).Keyring())
	}
	// The second has no version in it, so that of its folder counts.
	if want := []string{"6.1.0-40-amd64 6.1 _ima", "6.12.48+deb13-amd64 6.12 .ima"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}

	// An absolute link is one below the root.
	link := filepath.Join(dir, "boot/config-6.12.48+deb13-amd64")
	if err := os.Symlink("/usr/lib/modules/6.12.48+deb13-amd64/config", link); err != nil {
		t.Fatal(err)
	}
	if found, err := FindConfigs(root); err != nil || len(found) != 2 || found[1].Path != link {
		t.Errorf("by an absolute link: %+v, %v", found, err)
	}
	for _, to := range []string{"../../../../../../../../etc/passwd", "config-loop", "/boot/config-loop"} {
		loop := filepath.Join(dir, "boot/config-loop")
		if err := os.Symlink(to, loop); err != nil {
			t.Fatal(err)
		}
		if _, err := FindConfigs(root); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), loop) {
			t.Errorf("a link to %s gives %v", to, err)
		}
		if err := os.Remove(loop); err != nil {
			t.Fatal(err)
		}
	}
	// There is an /etc/passwd outside.
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "boot/config-out")); err != nil {
		t.Fatal(err)
	}
	if found, err := FindConfigs(root); err != nil || len(found) != 2 {
		t.Errorf("a link to a file that the root has not: %+v, %v", found, err)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte(trustedConfig))
	f.Add([]byte(debian12))
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"))
	f.Add([]byte("CONFIG_IMA_X509_PATH=\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadConfig(bytes.NewReader(data))
		if err != nil {
			return
		}
		if c.Trusted() != (TargetOf(c).Keyring() == ".ima") {
			t.Error("the keyring does not follow the option")
		}
		c.X509Path()
		TargetOf(c).Vouchers()
	})
}
