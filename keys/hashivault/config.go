package hashivault

// This file holds where the server, the key and the credentials are named.

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// defaultMount is where Vault mounts the engine unless told otherwise.
	defaultMount = "transit"
	// maxToken bounds a token in bytes; Vault's batch tokens are the longest, some
	// hundreds.
	maxToken = 8 << 10
	// maxCAFile bounds a file of certificates, or of a key, in bytes.
	maxCAFile = 4 << 20
	// maxCAFiles is how many files of a folder are read.
	maxCAFiles = 1000
	// tokenFile, in the home folder, is where vault login leaves the token.
	tokenFile = ".vault-token"
)

// reference is cosign's spelling of a key, without its scheme, and a version.
var reference = regexp.MustCompile(`^//([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?)(?:\?version=([1-9][0-9]{0,8}))?$`)

// mountPath is where the engine is mounted: one or more names.
var mountPath = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$`)

// A config is what the reference and the environment say.
type config struct {
	key     string
	version int // 0 for the latest
	address *url.URL
	mount   string
	family  family
	note    string // what a user should know, "" for nothing

	timeout   time.Duration
	namespace string
	tls       *tls.Config
}

// A family looks variables up: VAULT_NAME, or BAO_NAME first as OpenBao does it.
type family struct{ bao bool }

// get returns the value of a variable and its whole name.
func (f family) get(name string) (value, variable string) {
	if f.bao {
		if v := os.Getenv("BAO_" + name); v != "" {
			return v, "BAO_" + name
		}
	}
	return os.Getenv("VAULT_" + name), "VAULT_" + name
}

// parseReference reads what follows hashivault: in a reference.
func parseReference(rest string) (key string, version int, err error) {
	if len(rest) < 1000 {
		if m := reference.FindStringSubmatch(rest); m != nil {
			version, _ = strconv.Atoi(m[2]) // digits, or nothing
			return m[1], version, nil
		}
	}
	return "", 0, errors.New("it should read hashivault://NAME, the name of a transit key, and ?version=N for one version of it")
}

func newConfig(rest string) (*config, error) {
	c := &config{}
	var err error
	if c.key, c.version, err = parseReference(rest); err != nil {
		return nil, err
	}
	vault, bao := os.Getenv("VAULT_ADDR"), os.Getenv("BAO_ADDR")
	if vault != "" && bao != "" && vault != bao {
		return nil, errors.New("VAULT_ADDR and BAO_ADDR name two servers: unset one")
	}
	c.family.bao = bao != ""
	if err := c.readAddress(); err != nil {
		return nil, err
	}
	c.mount = strings.Trim(os.Getenv("TRANSIT_SECRET_ENGINE_PATH"), "/")
	if c.mount == "" {
		c.mount = defaultMount
	}
	if !mountPath.MatchString(c.mount) {
		return nil, fmt.Errorf("TRANSIT_SECRET_ENGINE_PATH %q is no path of an engine", c.mount)
	}
	if c.namespace, err = c.header("NAMESPACE"); err != nil {
		return nil, err
	}
	if c.timeout, err = c.readTimeout(); err != nil {
		return nil, err
	}
	if c.tls, err = c.readTLS(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *config) readAddress() error {
	text, variable := c.family.get("ADDR")
	if text == "" {
		return errors.New("VAULT_ADDR is not set: it is the address of the server, such as https://vault.example:8200")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		// The text is not repeated: somebody may have put a password into it.
		return fmt.Errorf("%s is no address such as https://vault.example:8200", variable)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s must be an address without user, password or query", variable)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		c.note = fmt.Sprintf("%s is an http:// address: whoever is on the way to %s can read the token; use https://", variable, u.Host)
	}
	c.address = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// header returns a variable whose value goes into a header.
func (c *config) header(name string) (string, error) {
	value, variable := c.family.get(name)
	if !isHeader(value) {
		return "", fmt.Errorf("%s holds a character that it cannot hold", variable)
	}
	return value, nil
}

func isHeader(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' })
}

// readTimeout reads how long a request may take, as the vault command has it.
func (c *config) readTimeout() (time.Duration, error) {
	text, variable := c.family.get("CLIENT_TIMEOUT")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if seconds, notANumber := strconv.ParseUint(text, 10, 31); notANumber == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s %q is no time such as 60s", variable, text)
	}
	return d, nil
}

// readTLS reads whom to trust and what to show.
func (c *config) readTLS() (*tls.Config, error) {
	if skip, variable := c.family.get("SKIP_VERIFY"); skip != "" {
		if on, err := strconv.ParseBool(skip); err != nil || on {
			return nil, fmt.Errorf("%s is set: a signing key is not asked for over a connection that anybody can answer; name the CA of the server in VAULT_CACERT", variable)
		}
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	t.ServerName, _ = c.family.get("TLS_SERVER_NAME")
	file, fileVariable := c.family.get("CACERT")
	folder, folderVariable := c.family.get("CAPATH")
	switch {
	case file != "":
		t.RootCAs = x509.NewCertPool()
		if err := addCertificates(t.RootCAs, file); err != nil {
			return nil, fmt.Errorf("%s: %w", fileVariable, err)
		}
	case folder != "":
		t.RootCAs = x509.NewCertPool()
		if err := addFolder(t.RootCAs, folder); err != nil {
			return nil, fmt.Errorf("%s: %w", folderVariable, err)
		}
	}
	cert, certVariable := c.family.get("CLIENT_CERT")
	key, keyVariable := c.family.get("CLIENT_KEY")
	if (cert == "") != (key == "") {
		return nil, fmt.Errorf("%s and %s go together: one of them is not set", certVariable, keyVariable)
	}
	if cert != "" {
		pair, err := readPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", certVariable, keyVariable, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// readPair reads a certificate and its key.
func readPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readBounded(certFile, maxCAFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readBounded(keyFile, maxCAFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

func addCertificates(pool *x509.CertPool, path string) error {
	content, err := readBounded(path, maxCAFile)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(content) {
		return fmt.Errorf("%s: no certificate in PEM form", path)
	}
	return nil
}

// addFolder adds each file of a folder that holds certificates.
func addFolder(pool *x509.CertPool, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > maxCAFiles {
		return fmt.Errorf("%s: more than %d files", dir, maxCAFiles)
	}
	found := false
	for _, e := range entries {
		if err := addCertificates(pool, filepath.Join(dir, e.Name())); err == nil {
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%s: no file with a certificate in PEM form", dir)
	}
	return nil
}

// token returns the token, read anew each time: an agent may renew the file. It is in
// no error.
func (c *config) token() (string, error) {
	token, source := c.family.get("TOKEN")
	if token == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("VAULT_TOKEN is not set, and there is no home folder for a %s", tokenFile)
		}
		source = filepath.Join(home, tokenFile)
		content, err := readBounded(source, maxToken)
		if errors.Is(err, os.ErrNotExist) {
			return "", errors.New("there is no token: set VAULT_TOKEN, or run vault login, which writes ~/" + tokenFile)
		}
		if err != nil {
			return "", err
		}
		token = strings.TrimSpace(string(content))
	}
	if token == "" || len(token) > maxToken || !isHeader(token) {
		return "", fmt.Errorf("what %s holds is no token", source)
	}
	return token, nil
}

// readBounded reads a file, or a pipe that somebody writes to. One that nobody writes
// to is empty: waiting for it could not be interrupted.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return content, nil
}
