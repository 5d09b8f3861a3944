package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
)

// mostFiles bounds how many files are open at once because a token or a service signs
// many at once.
const mostFiles = 64

type signFileOptions struct {
	key       signingKeyFlags
	out       outputFlags
	hash      string
	selects   []string
	excludes  []string
	recursive bool
	dryRun    bool
	jobs      int
}

func newSignFileCommand() *cobra.Command {
	var o signFileOptions
	cmd := &cobra.Command{
		Use:   "sign-file --key KEY --cert CERT FILE...",
		Short: "Sign files on a live system with a key of your own",
		Long: strings.TrimSpace(`
Signs each FILE that no package signs, such as a local script or an edited
executable conffile, and labels it (the attribute security.ima). With --recursive
folders are searched for files; a FILE may also be a quoted GLOB, in which ** stands
for any number of folders.

The inode that was read is labelled, and only if nobody wrote to it meanwhile.
Symbolic links are not followed. A file that the key has signed already is left as
it is, another signature is replaced. All files are tried; the command fails when
one of them did.

A signature locks a file: under a policy that appraises it, it has to be signed
again after each edit.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal sign-file --key local.key --cert local.crt /usr/local/bin/backup`,
			`imaseal sign-file --key local.key --cert local.crt --recursive --select exec /usr/local /opt`,
			`imaseal sign-file --key local.key --cert local.crt '/etc/cron.*/**'`),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name at least one file; " + cmd.CommandPath() + " --help has examples")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSignFile(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	fl := cmd.Flags()
	o.key.add(cmd)
	fl.BoolVarP(&o.recursive, "recursive", "r", false, "sign the files beneath folders")
	fl.StringArrayVar(&o.selects, "select", nil, "in folders sign files that match `RULE`: all, exec or a GLOB; may be repeated (default all)")
	fl.StringArrayVar(&o.excludes, "exclude", nil, "in folders do not sign files that match `GLOB`; may be repeated")
	fl.StringVar(&o.hash, "hash", "sha256", "digest `ALGORITHM`: sha256, sha384 or sha512")
	fl.BoolVar(&o.dryRun, "dry-run", false, "do everything but set labels")
	fl.IntVarP(&o.jobs, "jobs", "j", runtime.NumCPU(), "`N` files are worked on at once (default all cores)")
	fl.Lookup("jobs").DefValue = "0" // the help must not depend on the machine
	completeWith(cmd, "select", sign.SelectAll, sign.SelectExec)
	completeWith(cmd, "hash", "sha256", "sha384", "sha512")
	o.out.add(cmd)
	fl.Lookup("json").Usage = "print one JSON object a line for each file"
	fl.Lookup("verbose").Usage = "print a line for each file"
	return cmd
}

// A signedFile is what sign-file has to say about one file, and the object that
// --json prints; docs/json.md describes it.
type signedFile struct {
	Path    string `json:"path"`
	Action  string `json:"action"`
	KeyID   string `json:"key_id"`
	Hash    string `json:"hash"`
	Verdict string `json:"verdict"`
	Error   string `json:"error,omitempty"`

	keyError string // as in result
}

func runSignFile(ctx context.Context, out *output, o *signFileOptions, args []string) error {
	if o.jobs < 1 {
		return fmt.Errorf("--jobs %d: at least 1 is needed", o.jobs)
	}
	s := &installed.FileSigner{DryRun: o.dryRun}
	var err error
	if s.Hash, err = sign.ParseHash(o.hash); err != nil {
		return err
	}
	if !s.Hash.Strong() {
		return fmt.Errorf("--hash %s: use sha256, sha384 or sha512", s.Hash)
	}
	if s.Selection, err = sign.NewSelection(o.selects, o.excludes); err != nil {
		return err
	}
	key, err := o.key.open(ctx, out, o.key.passphrase.source())
	if err != nil {
		return err
	}
	defer key.close()
	s.Key = key.Signer
	files := findFiles(ctx, args, o.recursive)
	defer files.close()
	results := signEach(ctx, out, s, files.list, max(o.jobs, min(key.Jobs, mostFiles)))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return out.printSignedFiles(results, s)
}

// signEach signs the files, several at once, and returns the results in their order.
func signEach(ctx context.Context, out *output, s *installed.FileSigner, files []foundFile, jobs int) []signedFile {
	p := startProgress(out, 1)
	defer p.close()
	var bar *mpb.Bar
	if p.bars != nil {
		bar = p.bars.AddBar(int64(len(files)), mpb.BarRemoveOnComplete(),
			mpb.AppendDecorators(decor.CountersNoUnit("%d of %d files")))
		defer bar.Abort(true)
	}
	results := make([]signedFile, len(files))
	var workers sync.WaitGroup
	next := make(chan int)
	for range jobs {
		workers.Go(func() {
			for i := range next {
				results[i] = signOneFile(ctx, s, files[i])
				if bar != nil {
					bar.Increment()
				}
			}
		})
	}
	for i := range files {
		next <- i
	}
	close(next)
	workers.Wait()
	return results
}

func signOneFile(ctx context.Context, s *installed.FileSigner, f foundFile) signedFile {
	r := signedFile{Path: f.name, KeyID: s.Key.KeyID().String(), Hash: s.Hash.String(), Verdict: verdictOK}
	err := f.err
	if err == nil {
		r.Action, err = s.Sign(ctx, f.root, f.path, f.named)
	}
	if err != nil {
		r.Action, r.Verdict, r.Error, r.keyError = "", verdictError, err.Error(), keyErrorIn(err)
	}
	if r.Action == installed.Signed && s.DryRun {
		r.Action = "would sign"
	}
	return r
}

func (o *output) printSignedFiles(results []signedFile, s *installed.FileSigner) error {
	var done, already, failed int64
	failures := keyFailures{}
	for _, r := range results {
		failures[r.keyError]++
	}
	enc := json.NewEncoder(o.stdout)
	enc.SetEscapeHTML(false)
	for _, r := range results {
		switch {
		case r.Verdict != verdictOK:
			failed++
		case r.Action == installed.NotSelected:
			continue
		case r.Action == installed.AlreadySigned:
			already++
		default:
			done++
		}
		switch {
		case o.json:
			if err := enc.Encode(r); err != nil {
				return err
			}
		case r.Verdict != verdictOK:
			if line := failures.line(r.keyError, r.Error, "file"); line != "" {
				o.warn("%s", printable(line))
			}
		case o.verbose:
			fmt.Fprintf(o.stdout, "%s: %s\n", printable(r.Path), r.Action)
		}
	}
	if !o.json {
		verb := map[bool]string{false: "signed", true: "to be signed"}[s.DryRun]
		text := fmt.Sprintf("%s %s by key %s", plural(done, "file"), verb, s.Key.KeyID())
		if already > 0 {
			text += fmt.Sprintf(", %d already signed", already)
		}
		if failed > 0 {
			text += fmt.Sprintf(", %d failed", failed)
		}
		fmt.Fprintln(o.stdout, text)
	}
	if failed > 0 {
		return exitCode(exitError)
	}
	return nil
}
