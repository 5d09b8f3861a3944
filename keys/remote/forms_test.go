package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDERFromRaw(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		size := (curve.Params().N.BitLen() + 7) / 8
		for range 20 {
			want, err := key.Sign(rand.Reader, digest(1), nil)
			if err != nil {
				t.Fatal(err)
			}
			var n struct{ R, S *big.Int }
			if _, err := asn1.Unmarshal(want, &n); err != nil {
				t.Fatal(err)
			}
			raw := append(n.R.FillBytes(make([]byte, size)), n.S.FillBytes(make([]byte, size))...)
			if der, err := DERFromRaw(&key.PublicKey, raw); err != nil || !bytes.Equal(der, want) {
				t.Fatalf("%x, %v", der, err)
			}
		}
		order := curve.Params().N.FillBytes(make([]byte, size))
		one := big.NewInt(1).FillBytes(make([]byte, size))
		zero := make([]byte, size)
		for name, raw := range map[string][]byte{
			"empty": nil, "short": one, "long": bytes.Repeat(one, 3), "r zero": append(zero, one...), "s zero": append(bytes.Clone(one), zero...),
			"r is the order": append(bytes.Clone(order), one...), "s is the order": append(bytes.Clone(one), order...),
		} {
			if der, err := DERFromRaw(&key.PublicKey, raw); err == nil {
				t.Errorf("%s, %s: %x", curve.Params().Name, name, der)
			}
		}
	}
}

func TestStatusTemporary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
		for _, c := range []struct {
			status int
			after  string
			want   time.Duration
			ok     bool
		}{
			{429, "", 0, true}, {429, "7", 7 * time.Second, true}, {503, date, 90 * time.Second, true},
			{503, "Sun, 06 Nov 1994 08:49:37 GMT", 0, true}, {500, "-1", 0, true}, {502, "soon", 0, true}, {504, "99999999999", 0, true}, {408, "", 0, true},
			{501, "", 0, false}, {505, "", 0, false}, {400, "3", 0, false}, {401, "", 0, false}, {403, "", 0, false}, {404, "", 0, false}, {200, "", 0, false}, {600, "", 0, false},
		} {
			after, ok := StatusTemporary(c.status, http.Header{"Retry-After": {c.after}})
			if after != c.want || ok != c.ok {
				t.Errorf("%d, %q: %s, %v", c.status, c.after, after, ok)
			}
		}
	})
}

// TestTransportError makes the errors, rather than guessing what they look like.
func TestTransportError(t *testing.T) {
	quiet := func(s *httptest.Server) *httptest.Server {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		return s
	}
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	plain := quiet(httptest.NewServer(ok))
	defer plain.Close()
	secure := quiet(httptest.NewTLSServer(ok))
	defer secure.Close()
	demanding := quiet(httptest.NewUnstartedServer(ok))
	demanding.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	demanding.StartTLS()
	defer demanding.Close()
	drops := quiet(httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })))
	defer drops.Close()
	half := quiet(httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})))
	defer half.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	trusting := func(name string) *http.Client {
		pool := x509.NewCertPool()
		pool.AddCert(secure.Certificate())
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: name}}}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		client    *http.Client
		ctx       context.Context
		url, want string
		temporary bool
	}{
		"refused":        {url: "http://" + gone.Addr().String(), want: "nothing listens there", temporary: true},
		"dropped":        {url: drops.URL, want: "the connection broke", temporary: true},
		"half a body":    {url: half.URL, want: "the connection broke", temporary: true},
		"authority":      {url: secure.URL, want: "by no trusted authority"},
		"name":           {url: secure.URL, client: trusting("other.example"), want: "for another name"},
		"no TLS":         {url: strings.Replace(plain.URL, "http:", "https:", 1), want: "does not speak TLS"},
		"no certificate": {url: demanding.URL, client: demanding.Client(), want: "the TLS handshake failed"},
		"canceled":       {url: plain.URL, ctx: canceled, want: "canceled"},
		"no such name":   {url: "http://no-such-name.invalid", want: "no-such-name.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			if c.client == nil {
				c.client = &http.Client{Transport: &http.Transport{}}
			}
			defer c.client.CloseIdleConnections()
			r, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.url, strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := c.client.Do(r)
			if err == nil {
				_, err = io.ReadAll(response.Body)
				response.Body.Close()
			}
			err = TransportError(err)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, not %q", err, c.want)
			}
			// Without a network a resolver cannot say that a name does not exist.
			if _, temporary := IsTemporary(err); temporary != c.temporary && name != "no such name" {
				t.Errorf("temporary is %v: %v", temporary, err)
			}
		})
	}
	if TransportError(nil) != nil {
		t.Error("no error became one")
	}
}
