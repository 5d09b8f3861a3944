// Package kmstest stands in for the three clouds in tests: fakes of their key
// services, written from the documented APIs, behind their real host names. A
// program under test is not changed for it: it goes through a proxy, HTTPS_PROXY,
// and trusts a certificate, SSL_CERT_FILE, as it would in a company's network.
package kmstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// hosts are the names that the certificate is for.
var hosts = []string{
	"kms.eu-central-1.amazonaws.com", "kms.eu-west-1.amazonaws.com", "kms.example.com",
	"cloudkms.googleapis.com", "oauth2.googleapis.com",
	"*.vault.azure.net", "login.microsoftonline.com",
}

var (
	mu       sync.Mutex
	handlers = map[string]http.Handler{}
)

// Main runs the tests of a package with the clouds in reach and no other host: a
// TestMain calls it. The credentials of whoever runs the tests are out of reach too.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("", "kmstest-")
	if err != nil {
		log.Fatal(err)
	}
	code := run(m, dir)
	os.RemoveAll(dir)
	os.Exit(code)
}

func run(m *testing.M, dir string) int {
	certificate, err := serverCertificate(filepath.Join(dir, "ca.pem"))
	if err != nil {
		log.Print(err)
		return 2
	}
	cloud := httptest.NewUnstartedServer(http.HandlerFunc(dispatch))
	cloud.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	cloud.Config.ErrorLog = log.New(io.Discard, "", 0)
	cloud.StartTLS()
	defer cloud.Close()
	proxy := httptest.NewServer(tunnel(cloud.Listener.Addr().String()))
	defer proxy.Close()

	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		for _, prefix := range []string{"AWS_", "AZURE_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "MSI_", "IDENTITY_"} {
			if strings.HasPrefix(name, prefix) {
				os.Unsetenv(name)
			}
		}
	}
	for name, value := range map[string]string{
		"HTTPS_PROXY": proxy.URL, "HTTP_PROXY": proxy.URL, "NO_PROXY": "127.0.0.1,localhost",
		"SSL_CERT_FILE": filepath.Join(dir, "ca.pem"), "SSL_CERT_DIR": dir,
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential", "AZURE_CONFIG_DIR": dir,
	} {
		os.Setenv(name, value)
	}
	return m.Run()
}

// Handle answers the requests to host until the test ends.
func Handle(t testing.TB, host string, h http.Handler) {
	mu.Lock()
	handlers[host] = h
	mu.Unlock()
	t.Cleanup(func() {
		mu.Lock()
		delete(handlers, host)
		mu.Unlock()
	})
}

func dispatch(w http.ResponseWriter, r *http.Request) {
	mu.Lock()
	h := handlers[strings.TrimSuffix(r.Host, ":443")]
	mu.Unlock()
	if h == nil {
		http.Error(w, "no such host in this test: "+r.Host, http.StatusBadGateway)
		return
	}
	h.ServeHTTP(w, r)
}

// tunnel is a proxy whose every tunnel ends at the cloud.
func tunnel(cloud string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only TLS leaves this test", http.StatusForbidden)
			return
		}
		far, err := net.Dial("tcp", cloud)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		near, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			far.Close()
			return
		}
		io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(far, near); far.Close() }()
		go func() { io.Copy(near, far); near.Close() }()
	})
}

// serverCertificate makes a certificate for the hosts, which vouches for itself, and
// writes it to path.
func serverCertificate(path string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clouds of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 24),
		IsCA: true, BasicConstraintsValid: true, DNSNames: hosts,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return tls.Certificate{}, fmt.Errorf("kmstest: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
