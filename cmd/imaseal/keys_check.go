package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/sign"
)

type keysCheckOptions struct {
	config, procKeys string
	cas              []string
	json             bool
}

func newKeysCheckCommand() *cobra.Command {
	var o keysCheckOptions
	cmd := &cobra.Command{
		Use:   "check CERT...",
		Short: "Tell whether a kernel verifies file signatures by the keys of certificates",
		Long: strings.TrimSpace(`
Asks the running kernel (imaseal keys check signing.crt), or one whose configuration is
given: does it verify by keys of this kind? Would its keyring take the certificate, and
is it in .ima or _ima? Is the key that issued it in .builtin_trusted_keys,
.secondary_trusted_keys or .machine? Is it blacklisted? It says what to do next, and
changes nothing.

The configuration of the running kernel is looked for in /proc/config.gz, /boot and
/usr/lib/modules. The kernel's keyrings can be seen by root on the host only. With
--config or --proc-keys just what is given is looked at; a copy of /proc/keys tells
which keys there are, but not which keyring holds them. --proc-keys /proc/keys stands for
the running kernel itself.`) + "\n" + `
Exit status:
  0    the kernel verifies by the keys, or will, as far as can be told from here
  1    it does not: a certificate is not loaded, refused, blacklisted or of no use
  2    something could not be done
  130  interrupted by a signal`,
		Example: examples(
			`imaseal keys check --config config-6.12.48+deb13-amd64 --ca keys/ca.crt keys/signing.crt`,
			`imaseal keys check --json --config config-6.12.48+deb13-amd64 keys/signing.crt keys/release-2.crt`),
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKeysCheck(cmd, &o, args)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.config, "config", "", "configuration `FILE` of the kernel, compressed or not")
	fl.StringVar(&o.procKeys, "proc-keys", "", "copy `FILE` of the kernel's /proc/keys")
	fl.StringArrayVar(&o.cas, "ca", nil, "certificate `FILE` of a CA that is in the kernel; may be repeated")
	fl.BoolVar(&o.json, "json", false, "print one JSON object a line for each certificate")
	return cmd
}

// A machineSeen is what is known of the kernel that is asked.
type machineSeen struct {
	kernel.Machine `json:"-"`

	Release  string   `json:"release"`
	Config   string   `json:"config"`
	Keyring  string   `json:"keyring"`
	Vouchers []string `json:"vouchers"`
	// Keyrings is one of the words below.
	Keyrings string `json:"keyrings"`
}

// How much can be seen of a kernel's keyrings.
const (
	keyringsRead      = "read"
	keyringsListed    = "listed" // which there are, not what is in them
	keyringsHidden    = "hidden"
	keyringsNotLooked = "not looked at"
)

// A checkedCert is what came of one certificate. It is the object that keys check
// --json prints, one on a line; docs/json.md describes it.
type checkedCert struct {
	Path        string       `json:"path"`
	Subject     string       `json:"subject"`
	KeyID       string       `json:"key_id"`
	Algorithm   string       `json:"algorithm"`
	Verdict     string       `json:"verdict"`
	In          []string     `json:"in"`
	Listed      bool         `json:"listed"`
	IssuerIn    []string     `json:"issuer_in"`
	Blacklisted []string     `json:"blacklisted"`
	Problems    []keyProblem `json:"problems"`
	Next        []string     `json:"next"`
	Kernel      *machineSeen `json:"kernel"`
}

func runKeysCheck(cmd *cobra.Command, o *keysCheckOptions, args []string) error {
	if len(args) == 0 {
		return errors.New("name at least one certificate; imaseal keys check --help has examples")
	}
	out := (&outputFlags{}).open(cmd)
	m, err := o.machine(out)
	if err != nil {
		return err
	}
	cas, err := loadAll(cmd.Context(), o.cas)
	if err != nil {
		return err
	}
	var results []*checkedCert
	for _, path := range args {
		certs, err := keys.OpenCertificates(cmd.Context(), path, keys.OpenOptions{})
		if err != nil {
			return err
		}
		for _, cert := range certs {
			r, err := m.check(path, cert, cas)
			if err != nil {
				return err
			}
			results = append(results, r)
		}
	}
	if err := printChecked(cmd.OutOrStdout(), m, results, o.json); err != nil {
		return err
	}
	if slices.ContainsFunc(results, func(r *checkedCert) bool {
		return r.Verdict != string(kernel.Verifies) && r.Verdict != string(kernel.Fits)
	}) {
		return exitCode(exitFailed)
	}
	return nil
}

// machine finds out about the kernel that is asked.
func (o *keysCheckOptions) machine(out *output) (*machineSeen, error) {
	m := &machineSeen{Vouchers: []string{}, Keyrings: keyringsNotLooked}
	running := o.config == "" && o.procKeys == ""
	var err error
	switch {
	case o.config != "":
		m.Target.Config, err = kernel.ReadConfigFile(o.config)
	case running:
		if m.Release, err = kernel.RunningRelease(); err != nil {
			return nil, err
		}
		var problem error
		if m.Target.Config, problem = kernel.RunningConfig(); problem != nil {
			out.warn("%v with --config, and --proc-keys /proc/keys", problem)
			m.Version, _ = kernel.ParseVersion(m.Release) // not known where it is none
		}
	}
	if err != nil {
		return nil, err
	}
	if c := m.Target.Config; c != nil {
		m.Target = kernel.TargetOf(c)
		m.Config, m.Release = c.Path, c.Release
		if m.Release == "" && c.Version.Known() {
			m.Release = c.Version.String()
		}
	}
	if err := o.readKeyrings(m, running); err != nil {
		return nil, err
	}
	if m.Target.Config == nil && m.Visible() {
		m.Root = len(m.Machine.Keyrings.Named(".ima")) == 0
	}
	m.Keyring = m.Target.Keyring()
	m.Vouchers = append(m.Vouchers, m.Target.Vouchers()...)
	return m, nil
}

func (o *keysCheckOptions) readKeyrings(m *machineSeen, running bool) error {
	switch {
	case o.procKeys != "" && o.procKeys != "/proc/keys":
		f, err := os.Open(o.procKeys)
		if err != nil {
			return err
		}
		defer f.Close()
		if m.Machine.Keyrings, err = kernel.KeyringsFrom(f); err != nil {
			return fmt.Errorf("%s: %w", o.procKeys, err)
		}
		m.Keyrings = keyringsListed
	case running, o.procKeys != "":
		var err error
		m.Machine.Keyrings, err = kernel.ReadKeyrings()
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return err
		}
		m.Keyrings = keyringsRead
	default:
		return nil
	}
	if !m.Visible() {
		m.Keyrings = keyringsHidden
	}
	return nil
}

func (m *machineSeen) check(path string, cert *x509.Certificate, cas []*x509.Certificate) (*checkedCert, error) {
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var chain error
	if len(cas) > 0 {
		chain = keys.ChainsTo(cert, cas)
	}
	c := m.Check(cert, chain)
	r := &checkedCert{
		Path: path, Subject: distinguishedName(cert.RawSubject), KeyID: id.String(), Algorithm: kernel.AlgorithmName(cert.PublicKey),
		Verdict: string(c.Verdict), In: c.In, Listed: c.Listed, IssuerIn: c.IssuerIn, Blacklisted: []string{}, Problems: []keyProblem{}, Kernel: m,
	}
	for _, b := range []struct {
		is   bool
		name string
	}{{c.Blacklisted.Hash, "hash"}, {c.Blacklisted.Key, "key"}, {c.Blacklisted.IMA, "ima"}} {
		if b.is {
			r.Blacklisted = append(r.Blacklisted, b.name)
		}
	}
	for _, p := range c.Problems {
		r.Problems = append(r.Problems, keyProblem{string(p.Severity), p.Reason, p.Detail})
	}
	r.Next = m.next(path, cert, c)
	return r, nil
}

// next says what to do, so that the kernel verifies by the key.
func (m *machineSeen) next(path string, cert *x509.Certificate, c kernel.Check) []string {
	steps := []string{}
	say := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	has := func(reason string) bool {
		return slices.ContainsFunc(c.Problems, func(p kernel.Problem) bool { return p.Reason == reason && p.Severity != kernel.Notice })
	}
	switch {
	case has("blacklisted"):
		say("make a new key (imaseal keys renew --new-key) and sign with it: what is blacklisted cannot be taken back")
	case has("collision"):
		say("make a new key: imaseal keys renew --new-key")
	case isCA(cert) && c.Verdict == kernel.Not:
		say("check the certificates of signing keys: this one is for vouching for them")
	case has("kernel"):
		say("use a kernel with IMA-appraisal and asymmetric keys")
	case has("key type"):
		say("make a key that this kernel verifies by: imaseal keys init --type rsa2048")
	case has("no voucher"), has("issuer"):
		if slices.Contains(m.Vouchers, ".machine") {
			say("have the CA (key id %s) trusted: imaseal keys export --for mok --ca-cert CA.crt DIR, then mokutil --import, reboot and confirm; or build it into the kernel (SYSTEM_TRUSTED_KEYS)", hex.EncodeToString(cert.AuthorityKeyId))
		} else {
			say("have the CA (key id %s) built into the kernel (SYSTEM_TRUSTED_KEYS): this one asks no other keyring", hex.EncodeToString(cert.AuthorityKeyId))
		}
	case c.Verdict == kernel.Not:
		say("issue another certificate for the key: imaseal keys renew")
	case c.Verdict == kernel.NotLoaded:
		ring := "%keyring:" + m.Keyring
		if m.Keyring == "_ima" && len(m.Machine.Keyrings.Named("_ima")) == 0 {
			ring = "$(keyctl newring _ima @u)"
		}
		say(`load it until the next boot, in DER: keyctl padd asymmetric "" %s < CERT.der`, ring)
		say("load it at each boot: imaseal keys install --root / --cert %s", path)
	case m.Keyrings == keyringsHidden:
		say("the kernel's keyrings cannot be seen from here: run this as root, on the host")
	case m.Keyrings == keyringsListed && c.Listed:
		say("a key of this identifier is in a keyring, which one the copy of /proc/keys does not tell: run this as root on that machine")
	}
	return steps
}

func printChecked(w io.Writer, m *machineSeen, results []*checkedCert, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for _, r := range results {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "kernel\t%s%s\n", orDash(printable(m.Release)), prefixed(", configured by ", printable(m.Config)))
	keyring := "takes any certificate"
	if m.Trusted() {
		keyring = "takes what a key in " + anyOf(m.Vouchers) + " issued"
	}
	fmt.Fprintf(t, "keyring\t%s, which %s\n", m.Keyring, keyring)
	fmt.Fprintf(t, "keyrings\t%s\n", m.Keyrings)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		fmt.Fprintf(w, "\n%s: %s\n", printable(r.Path), r.Verdict)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		line := func(name, value string) { fmt.Fprintf(t, "  %s\t%s\n", name, orDash(value)) }
		line("subject", printable(r.Subject))
		line("key", r.KeyID+", "+r.Algorithm)
		if m.Keyrings == keyringsRead {
			line("is in", strings.Join(r.In, ", "))
			if m.Trusted() {
				line("issuer is in", strings.Join(r.IssuerIn, ", "))
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, p := range r.Problems {
			fmt.Fprintf(w, "  %s: %s\n", p.Severity, printable(p.Detail))
		}
		for _, step := range r.Next {
			if _, err := fmt.Fprintf(w, "  next: %s\n", printable(step)); err != nil {
				return err
			}
		}
	}
	return nil
}

// anyOf writes words as in a sentence; there may be only one.
func anyOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return orList(words)
}
