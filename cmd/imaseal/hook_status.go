package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/deb/dpkg"
	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/rpm/rpmdb"
	"github.com/imaseal/imaseal/sign"
)

// hookStatus is what hook status has to say. It is the object that --json prints;
// docs/json.md describes it.
type hookStatus struct {
	Root          string            `json:"root"`
	Scope         string            `json:"scope"`
	Installed     bool              `json:"installed"`
	DivertedBy    string            `json:"diverted_by"`
	Users         []hookUser        `json:"users"`
	Configuration hookConfiguration `json:"configuration"`
	Certificates  []hookCertificate `json:"certificates"`
	Kernel        *hookKernel       `json:"kernel,omitempty"`
	RPM           *hookRPM          `json:"rpm,omitempty"`
	Problems      []string          `json:"problems"`
}

// A hookUser is somebody who runs dpkg.
type hookUser struct {
	Name   string `json:"name"`
	Path   string `json:"path"` // the PATH that dpkg has
	Runs   string `json:"runs"` // the dpkg-deb that it finds there
	Proof  string `json:"proof"`
	Detail string `json:"detail,omitempty"`
	hook   bool   // whether the files say that it is the hook
}

type hookConfiguration struct {
	Mode           string   `json:"mode"`
	Unsigned       string   `json:"unsigned"`
	Allow          []string `json:"allow"`
	UnknownKey     string   `json:"unknown_key"`
	Unsupported    string   `json:"unsupported"`
	LabelConffiles string   `json:"label_conffiles"`
}

type hookCertificate struct {
	Path    string `json:"path"`
	KeyID   string `json:"key_id"`
	Subject string `json:"subject"`
}

// hookKernel is what the kernel says of appraisal.
type hookKernel struct {
	IMA        bool     `json:"ima"`
	Parameters []string `json:"parameters"`
	// Appraises is how many rules of the policy ask for appraisal, -1 when the policy
	// can't be read.
	Appraises int `json:"appraises"`
}

type hookRPM struct {
	Plugin bool   `json:"plugin"`
	Active bool   `json:"active"`
	Detail string `json:"detail"`
}

func newHookStatusCommand() *cobra.Command {
	var root string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say and prove for whom the installer hook is in use",
		Long: strings.TrimSpace(`
Says which dpkg-deb apt and a plain dpkg run, and proves it: a tiny package, signed by
a key of the moment, is installed into a private scratch root, of which nothing is
left. Then what the hook is configured to do, the certificates that it trusts, what the
kernel appraises, and whether an rpm that is installed has rpm-plugin-ima.

A hook that is not in use is no failure. Failures are a configuration that is not
understood, a hook that does not do what it should, and an enable or disable that was
interrupted.`) + "\n" + exitStatusHelp,
		Example: examples(`imaseal hook status`, `imaseal hook status --json`),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := readHookStatus(cmd.Context(), root)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				err = enc.Encode(s)
			} else {
				err = s.print(cmd.OutOrStdout())
			}
			if err == nil && len(s.Problems) > 0 {
				err = exitCode(exitFailed)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "look at the system below folder `DIR`, whose dpkg is run for the proof")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// plainPath is the PATH of a dpkg that a system is not asked for.
const plainPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// readHookStatus looks at the system below root and tries its dpkg.
func readHookStatus(ctx context.Context, root string) (*hookStatus, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &hookStatus{Root: root, Users: []hookUser{}, Certificates: []hookCertificate{}, Problems: []string{}}
	a, err := dpkg.OpenActivation(root)
	if err != nil {
		return nil, fmt.Errorf("--root: %w", err)
	}
	defer a.Close()
	state, err := a.State(ctx)
	if err != nil {
		return nil, err
	}
	s.Scope, s.Installed, s.DivertedBy = string(state.Scope), state.Hook, state.DivertedBy
	s.Problems = append(s.Problems, state.Problems...)
	s.addConfiguration(root)
	if state.Name != dpkg.HoldsNothing {
		s.addUsers(ctx, a, root)
		s.prove(ctx, state.Scope, root)
	}
	s.addCertificates(root)
	if root == "/" {
		s.Kernel = readKernel("/proc/cmdline", "/sys/kernel/security/ima")
	}
	plugin, err := rpmdb.PluginState(root)
	if err != nil {
		s.problem("rpm: %v", err)
	} else if plugin.RPM != "" {
		s.RPM = &hookRPM{Plugin: plugin.Present(), Active: plugin.Active, Detail: plugin.String()}
	}
	return s, nil
}

func (s *hookStatus) problem(format string, args ...any) {
	s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
}

// addUsers finds out which dpkg-deb apt and a plain dpkg run.
func (s *hookStatus) addUsers(ctx context.Context, a *dpkg.Activation, root string) {
	add := func(name, path string) {
		u := hookUser{Name: name, Path: path, Proof: proofNone}
		for _, folder := range filepath.SplitList(path) {
			file := filepath.Join(folder, "dpkg-deb")
			if holding, err := a.Holds(file); u.Runs == "" && err == nil && holding != dpkg.HoldsNothing {
				u.Runs, u.hook = file, holding == dpkg.HoldsHook
			}
		}
		s.Users = append(s.Users, u)
	}
	path, err := a.APTPath(ctx)
	switch {
	case err == nil:
		add("apt", path)
	case s.Scope == string(dpkg.ScopeAPT):
		s.problem("apt can't be asked for its DPkg::Path: %v", err)
	}
	path = os.Getenv("PATH")
	if root != "/" || path == "" {
		path = plainPath
	}
	add("dpkg", path)
}

// prove installs the tiny package as each of the users would, and compares.
func (s *hookStatus) prove(ctx context.Context, scope dpkg.Scope, root string) {
	p, err := newProver(ctx, root)
	if err != nil {
		for i := range s.Users {
			s.Users[i].Detail = err.Error()
		}
	} else {
		for i := range s.Users {
			u := &s.Users[i]
			result := p.try(ctx, u.Path)
			u.Proof, u.Detail = result.Outcome, result.Detail
		}
		if err := p.Close(); err != nil {
			s.problem("%v", err)
		}
	}
	for _, u := range s.Users {
		due := scope == dpkg.ScopeAll || scope == dpkg.ScopeAPT && u.Name == "apt"
		switch {
		case due && !u.hook:
			s.problem("the hook is to be in use for %s, which runs %s (PATH %s)", u.Name, orDash(u.Runs), u.Path)
		case due && s.Configuration.Mode == string(dpkg.ModeOff):
			// As the administrator wants it.
		case due && (u.Proof == proofNotLabelled || u.Proof == proofRefused):
			s.problem("%s runs the hook, yet a signed package was %s%s", u.Name, u.Proof, prefixed(": ", u.Detail))
		}
	}
}

func (s *hookStatus) addConfiguration(root string) {
	c, problems := dpkg.LoadConfig(root)
	s.Problems = append(s.Problems, problems...)
	s.Configuration = hookConfiguration{
		Mode: string(c.Mode), Unsigned: string(c.Unsigned), Allow: append([]string{}, c.Allowed...),
		UnknownKey: string(c.UnknownKey), Unsupported: string(c.Unsupported), LabelConffiles: string(c.LabelConffiles),
	}
}

func (s *hookStatus) addCertificates(root string) {
	for _, folder := range dpkg.CertificateFolders {
		found, err := os.ReadDir(filepath.Join(root, folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.problem("%v", err)
		}
		for _, f := range found {
			if strings.HasPrefix(f.Name(), ".") || f.IsDir() {
				continue // as the hook does
			}
			name := filepath.Join(folder, f.Name())
			certs, err := keys.LoadCertificates(filepath.Join(root, name))
			for _, cert := range certs {
				err = errors.Join(err, s.addCertificate(name, cert))
			}
			if err != nil {
				s.problem("%s: %v", name, err)
			}
		}
	}
}

func (s *hookStatus) addCertificate(name string, cert *x509.Certificate) error {
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		return err
	}
	if cert.IsCA {
		s.problem("%s: %s is a CA: only certificates of signing keys are looked at here", name, cert.Subject)
	}
	s.Certificates = append(s.Certificates, hookCertificate{name, id.String(), cert.Subject.String()})
	return nil
}

// readKernel reads what the kernel says of IMA's appraisal.
func readKernel(cmdline, ima string) *hookKernel {
	k := &hookKernel{Parameters: []string{}, Appraises: -1}
	if text, err := os.ReadFile(cmdline); err == nil {
		for _, word := range strings.Fields(string(text)) {
			if strings.HasPrefix(word, "ima") || strings.HasPrefix(word, "evm") {
				k.Parameters = append(k.Parameters, word)
			}
		}
	}
	if _, err := os.Stat(ima); err == nil {
		k.IMA = true
	}
	if text, err := os.ReadFile(filepath.Join(ima, "policy")); err == nil {
		k.Appraises = 0
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "appraise ") {
				k.Appraises++
			}
		}
	}
	return k
}

func (k *hookKernel) String() string {
	said := "IMA is not in this kernel, or /sys/kernel/security is not mounted"
	switch {
	case k.IMA && k.Appraises > 0:
		said = fmt.Sprintf("appraises: %d rules of the policy", k.Appraises)
	case k.IMA && k.Appraises == 0:
		said = "IMA is there, but no rule of its policy appraises"
	case k.IMA:
		said = "IMA is there; its policy can't be read"
	}
	return said + prefixed("; ", strings.Join(k.Parameters, " "))
}

// print prints the status for a person.
func (s *hookStatus) print(w io.Writer) error {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	switch scope := dpkg.Scope(s.Scope); {
	case scope != dpkg.ScopeNone && s.Configuration.Mode == string(dpkg.ModeOff):
		say("The hook is in use, and its configuration, mode = off, has it do nothing.\n")
	case scope == dpkg.ScopeAPT:
		say("The hook is in use for apt.\n")
	case scope == dpkg.ScopeAll:
		say("The hook is in use for every dpkg.\n")
	case s.Installed:
		say("The hook is installed and not in use: imaseal hook enable.\n")
	default:
		say("The hook is not installed: it is in the package %s.\n", dpkg.HookOwner)
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i, u := range s.Users {
		if i == 0 {
			fmt.Fprintln(t, "WHO\tRUNS\tWHICH IS\tA SIGNED PACKAGE, TRIED")
		}
		is := dpkg.HoldsOther
		if u.hook {
			is = dpkg.HoldsHook
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s%s\n", u.Name, orDash(u.Runs), is, u.Proof, prefixed(": ", printable(u.Detail)))
	}
	if len(s.Users) > 0 {
		fmt.Fprintln(t)
	}
	if s.DivertedBy != "" {
		fmt.Fprintf(t, "diversion\t%s to %s, by %s\n", dpkg.NamePath, dpkg.KeptPath, s.DivertedBy)
	}
	c := s.Configuration
	fmt.Fprintf(t, "configuration\tmode = %s, unsigned = %s%s, unknown-key = %s, unsupported = %s, label-conffiles = %s\n",
		c.Mode, c.Unsigned, prefixed(", allow = ", strings.Join(c.Allow, " ")), c.UnknownKey, c.Unsupported, c.LabelConffiles)
	if len(s.Certificates) == 0 {
		fmt.Fprintf(t, "certificates\tnone in %s: signatures are set, and the kernel judges them\n", strings.Join(dpkg.CertificateFolders, " and "))
	}
	for i, cert := range s.Certificates {
		label := "certificates"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(t, "%s\t%s  %s (%s)\n", label, cert.KeyID, printable(cert.Subject), printable(cert.Path))
	}
	if s.Kernel != nil {
		fmt.Fprintf(t, "kernel\t%s\n", s.Kernel)
	}
	if s.RPM != nil {
		fmt.Fprintf(t, "rpm\t%s\n", s.RPM.Detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i, p := range s.Problems {
		if i == 0 {
			say("")
		}
		say("problem: %s", printable(p))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
