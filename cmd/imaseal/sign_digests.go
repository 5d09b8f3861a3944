package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/sign/auditlog"
	"github.com/imaseal/imaseal/sign/split"
)

type signDigestsOptions struct {
	out       outputFlags
	key       signingKeyFlags
	jobs      int
	rules     string
	logFile   string
	requester string
	keep      string
	output    string
}

func newSignDigestsCommand() *cobra.Command {
	var o signDigestsOptions
	cmd := &cobra.Command{
		Use:   "sign-digests --key KEY --cert CERT REQUEST > RESPONSE",
		Short: "Sign what another host asks for, without seeing its packages",
		Long: strings.TrimSpace(`
Reads REQUEST, which imaseal digests made (- for stdin), builds the manifest and the
statement of each package, signs both, and writes the response to stdout, or to
--output. The whole request is read and checked, by --rules too, before the key is
opened: one that is malformed, cut off or not allowed has nothing signed. Nothing of
a response is written before all of it is there, and --log has an entry for it that
is on the disk.

A line of FILE of --rules is empty, a comment that begins with #, or one of
  types = deb rpm                 header-digests = refuse
  hashes = sha256 sha384 sha512   max-packages = 500
  packages = hello lib*           max-digests = 100000
  architectures = amd64 all       max-package-digests = 20000
                                  max-bytes = 50000000

A signing host cannot see what a digest is of. docs/split.md says what it trusts the
build host for.`) + "\n" + exitStatusHelp + "\nA request that the rules do not allow is 1, one that cannot be read 2.",
		Example: examples(
			`imaseal sign-digests --key keys/signing.key --cert keys/signing.crt request > response`,
			`imaseal sign-digests --key keys/signing.key --cert keys/signing.crt --rules rules --log audit.log --keep requests --requester builder7 --output response request`),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one request, or - for stdin; " + cmd.CommandPath() + " --help has examples")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSignDigests(cmd.Context(), o.out.open(cmd), &o, cmd.InOrStdin(), args[0])
		},
	}
	fl := cmd.Flags()
	o.key.add(cmd)
	fl.StringVar(&o.rules, "rules", "", "refuse a request that the rules in `FILE` do not allow")
	fl.StringVar(&o.logFile, "log", "", "add an entry to the audit log `FILE`; made when missing")
	fl.StringVar(&o.requester, "requester", "", "say in the audit log that the request is from `NAME`, which is not checked")
	fl.StringVar(&o.keep, "keep", "", "keep every request that is to be signed in folder `DIR`, under its SHA-256")
	fl.StringVar(&o.output, "output", "", "write the response to `FILE`, at once or not at all")
	fl.IntVarP(&o.jobs, "jobs", "j", runtime.NumCPU(), "`N` signatures are made at once by a key in a file (default all cores)")
	fl.Lookup("jobs").DefValue = "0" // the help must not depend on the machine
	o.out.add(cmd)
	fl.Lookup("json").Usage = "print one JSON object, which needs --output"
	return cmd
}

// A hosting is one request on the signing host.
type hosting struct {
	*signDigestsOptions
	out    *output
	log    *auditlog.Log // nil: there is none
	result hostResult
}

// A hostResult is what --json prints of it; docs/json.md describes it.
type hostResult struct {
	Request       string `json:"request"`
	RequestSHA256 string `json:"request_sha256"`
	Action        string `json:"action"`
	Output        string `json:"output,omitempty"`
	Packages      int    `json:"packages"`
	Digests       int    `json:"digests"`
	KeyID         string `json:"key_id"`
	LogSequence   int64  `json:"log_seq,omitempty"`
	LogHead       string `json:"log_head,omitempty"`
	Verdict       string `json:"verdict"`
	Error         string `json:"error,omitempty"`
}

func runSignDigests(ctx context.Context, out *output, o *signDigestsOptions, stdin io.Reader, from string) error {
	stdout, err := out.yieldStdout(o.output)
	if err != nil {
		return err
	}
	if o.jobs < 1 {
		return fmt.Errorf("--jobs %d: at least 1 is needed", o.jobs)
	}
	h := &hosting{signDigestsOptions: o, out: out}
	h.result = hostResult{Request: from, Verdict: verdictOK}
	rules := new(split.Rules)
	if o.rules != "" {
		if rules, err = readRules(o.rules); err != nil {
			return err
		}
	}
	if o.logFile != "" {
		if h.log, err = auditlog.Open(o.logFile); err != nil {
			return err
		}
		defer h.log.Close()
		if isFile(o.output, o.logFile) {
			return fmt.Errorf("--output %s is the audit log, which the response would replace: name another file", o.output)
		}
	}
	err = h.run(ctx, rules, stdin, stdout)
	switch {
	case err == nil:
	case errors.Is(err, split.ErrRefused):
		h.result.Verdict, h.result.Error = verdictFailed, err.Error()
	default:
		h.result.Verdict, h.result.Error = verdictError, err.Error()
	}
	return h.print(err)
}

// isFile reports whether two paths name one file that is there.
func isFile(a, b string) bool {
	one, errOne := os.Stat(a)
	two, errTwo := os.Stat(b)
	return errOne == nil && errTwo == nil && os.SameFile(one, two)
}

func readRules(path string) (*split.Rules, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rules, err := split.ParseRules(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rules, nil
}

// run checks the request, signs it, and releases the response.
func (h *hosting) run(ctx context.Context, rules *split.Rules, stdin io.Reader, stdout io.Writer) error {
	request, err := newSpool()
	if err != nil {
		return err
	}
	defer request.Close()
	s, err := h.check(ctx, rules, stdin, request)
	if err != nil {
		return err
	}
	// Who looks at what the key may have signed should find it, also when signing breaks off.
	if err := h.keepRequest(ctx, request); err != nil {
		return h.fail(s, "", "", fmt.Errorf("--keep: the request could not be kept, so nothing was signed: %w", err))
	}
	key, err := h.key.open(ctx, h.out, h.key.passphrase.source())
	if err != nil {
		return h.fail(s, "", "", err)
	}
	defer key.close()
	identity, err := keyIdentity(key)
	if err != nil {
		return err
	}
	id := key.KeyID().String()
	h.result.KeyID = id
	response, err := newSpool()
	if err != nil {
		return h.fail(s, id, identity, err)
	}
	defer response.Close()
	if err := h.sign(ctx, key, s, request, response); err != nil {
		return h.fail(s, id, identity, err)
	}
	// Until here the signatures are in a file without a name only. Whoever gets them can
	// find them in the log, wherever this process is killed.
	if err := h.record(s, id, identity, auditlog.Signed, ""); err != nil {
		return err
	}
	if err := h.release(ctx, response, stdout); err != nil {
		return err
	}
	h.result.Action, h.result.Output = "signed", h.output
	h.out.note("signed %s in %s with key %s for request %s", plural(int64(s.Digests), "digest"), plural(int64(s.Packages), "package"), id, h.result.RequestSHA256)
	if h.log != nil {
		h.out.note("audit log: entry %d, head %s", h.result.LogSequence, h.result.LogHead)
	}
	return nil
}

// progressEvery is how often is told how far the signing is.
const progressEvery = 10 * time.Second

// progress tells now and then how many digests of all are signed. It returns what is to
// be called with how many more there are, and what ends the telling.
func (h *hosting) progress(all int) (count func(int), stop func()) {
	var done atomic.Int64
	ticker := time.NewTicker(progressEvery)
	end := make(chan struct{})
	go func() {
		for {
			select {
			case <-ticker.C:
				h.out.note("signed %d of %d digests so far", done.Load(), all)
			case <-end:
				return
			}
		}
	}()
	return func(n int) { done.Add(int64(n)) }, func() {
		ticker.Stop()
		close(end)
	}
}

// check reads the request into spool.
func (h *hosting) check(ctx context.Context, rules *split.Rules, stdin io.Reader, spool io.Writer) (*split.Summary, error) {
	var s *split.Summary
	err := interruptible(ctx, func() error {
		in := stdin
		if h.result.Request != "-" {
			f, err := os.Open(h.result.Request) // which waits for who writes to a named pipe
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		var err error
		s, err = split.Check(in, spool, rules)
		return err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if s == nil { // it could not be opened
		return nil, err
	}
	h.result.Packages, h.result.Digests = s.Packages, s.Digests
	if s.SHA256 != [sha256.Size]byte{} {
		h.result.RequestSHA256 = hex.EncodeToString(s.SHA256[:])
	}
	if err == nil {
		return s, nil
	}
	err = fmt.Errorf("%s: %w; nothing was signed", printable(h.result.Request), err)
	h.result.Action = "refused"
	if failed := h.record(s, "", "", auditlog.Refused, err.Error()); failed != nil {
		return nil, fmt.Errorf("%w (%v)", failed, err)
	}
	return nil, err
}

// sign signs the request, and writes the response.
func (h *hosting) sign(ctx context.Context, key *signingKey, s *split.Summary, request, response *os.File) error {
	if _, err := request.Seek(0, io.SeekStart); err != nil {
		return err
	}
	count, stop := h.progress(s.Digests)
	defer stop()
	return split.Sign(ctx, request, response, key.Signer, s, split.SignOptions{Jobs: h.jobs, Progress: count})
}

// release copies the response to --output or to stdout.
func (h *hosting) release(ctx context.Context, response *os.File, stdout io.Writer) error {
	if _, err := response.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return writeOut(ctx, stdout, h.output, func(w io.Writer) error {
		if _, err := io.Copy(w, response); err != nil {
			return fmt.Errorf("the response was not written to its end: %w", err)
		}
		return nil
	})
}

// keepRequest puts the request into the folder of --keep. One that is there already, by
// its hash the same, stays.
func (h *hosting) keepRequest(ctx context.Context, request *os.File) error {
	if h.keep == "" {
		return nil
	}
	if err := os.MkdirAll(h.keep, 0o700); err != nil {
		return err
	}
	path := filepath.Join(h.keep, h.result.RequestSHA256)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if _, err := request.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return atomicfile.Write(ctx, path, func(f *os.File) error {
		_, err := io.Copy(f, request)
		return err
	}, atomicfile.Options{Mode: 0o600})
}

// fail records that signing broke off, and returns why.
func (h *hosting) fail(s *split.Summary, keyID, identity string, err error) error {
	return errors.Join(err, h.record(s, keyID, identity, auditlog.Failed, err.Error()))
}

// record adds an entry to the audit log, if there is one.
func (h *hosting) record(s *split.Summary, keyID, identity, outcome, reason string) error {
	if h.log == nil {
		return nil
	}
	e := auditlog.Entry{
		Requester: h.requester, KeyID: keyID, KeySHA256: identity,
		RequestSHA256: h.result.RequestSHA256, Packages: s.Packages, Digests: s.Digests, Names: s.Names,
		Outcome: outcome, Reason: reason,
	}
	e.SetCaller()
	written, head, err := h.log.Append(e)
	if err != nil {
		return fmt.Errorf("the audit log could not be written, so nothing is released: %w", err)
	}
	h.result.LogSequence, h.result.LogHead = written.Sequence, head
	return nil
}

// keyIdentity returns the SHA-256 of the public key's SubjectPublicKeyInfo.
func keyIdentity(key *signingKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// print prints the result, and returns the exit code for err.
func (h *hosting) print(err error) error {
	if h.out.json {
		enc := json.NewEncoder(h.out.stdout)
		enc.SetEscapeHTML(false)
		if failed := enc.Encode(h.result); failed != nil {
			return errors.Join(err, failed)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	}
	if !h.out.json {
		h.out.warn("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if h.result.Verdict == verdictFailed {
		return exitCode(exitFailed)
	}
	return exitCode(exitError)
}
