package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys/cache"
	"github.com/imaseal/imaseal/sign"
)

func newCacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look after a cache of signatures",
		Long: strings.TrimSpace(`
Shows, shortens and verifies the file of --cache, in which sign keeps signatures for
the next run. Builders may go on using it meanwhile.

A key is named by its identity, the SHA-256 of its public key:
  openssl pkey -in KEY -pubout -outform DER | sha256sum`),
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newCacheStatsCommand(), newCacheTrimCommand(), newCacheVerifyCommand())
	return cmd
}

func oneCache(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("name one cache file; " + cmd.CommandPath() + " --help has examples")
	}
	return nil
}

// A cacheReport is what a verb of cache has to say, and the object that --json
// prints; docs/json.md describes it.
type cacheReport struct {
	Path    string `json:"path"`
	Action  string `json:"action"`
	Verdict string `json:"verdict"`

	// stats and trim
	Bytes       int64        `json:"bytes,omitempty"`
	BytesBefore int64        `json:"bytes_before,omitempty"`
	Generations int          `json:"generations,omitempty"`
	Entries     *int         `json:"entries,omitempty"`
	Before      *int         `json:"entries_before,omitempty"`
	Groups      []cacheGroup `json:"groups,omitempty"`

	// verify
	Checked *int       `json:"checked,omitempty"`
	Other   *int       `json:"other,omitempty"`
	Removed *int       `json:"removed,omitempty"`
	Bad     []cacheBad `json:"bad,omitempty"`
}

type cacheGroup struct {
	Identity string `json:"identity"`
	KeyID    string `json:"key_id,omitempty"`
	Hash     string `json:"hash"`
	Entries  int    `json:"entries"`
	Bytes    int64  `json:"bytes"`
	Oldest   string `json:"oldest"`
	Newest   string `json:"newest"`
}

type cacheBad struct {
	Identity string `json:"identity"`
	Hash     string `json:"hash"`
	Digest   string `json:"digest"`
}

func (o *output) printCacheObject(r cacheReport) error {
	return json.NewEncoder(o.stdout).Encode(r)
}

type cacheStatsOptions struct {
	json  bool
	certs []string
}

func newCacheStatsCommand() *cobra.Command {
	var o cacheStatsOptions
	cmd := &cobra.Command{
		Use:   "stats FILE",
		Short: "Show what a cache holds",
		Long: strings.TrimSpace(`
Prints for each key and hash how many signatures FILE has, how many bytes they take
and when the first and the last of them were written, or moved up because they were
used when the file was more than half full. What has moved up counts twice until the
older copy goes.`),
		Example: examples(`imaseal cache stats signatures.db`, `imaseal cache stats --cert keys/signing.crt --json signatures.db`),
		Args:    oneCache,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := (&outputFlags{json: o.json}).open(cmd)
			return runCacheStats(cmd.Context(), out, &o, args[0])
		},
	}
	cmd.Flags().StringArrayVar(&o.certs, "cert", nil, "name the keys of the certificates in `FILE` by their key ids; may be repeated")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return cmd
}

func runCacheStats(ctx context.Context, out *output, o *cacheStatsOptions, path string) error {
	names, _, err := cacheKeys(ctx, o.certs)
	if err != nil {
		return err
	}
	stats, err := cache.Stats(path)
	if err != nil {
		return err
	}
	entries := entriesOf(stats)
	r := cacheReport{Path: path, Action: "stats", Verdict: verdictOK, Bytes: stats.Bytes, Generations: stats.Generations, Entries: &entries}
	for _, g := range stats.Groups {
		r.Groups = append(r.Groups, cacheGroup{
			Identity: hex.EncodeToString(g.Identity[:]), KeyID: names[g.Identity], Hash: g.Hash.String(),
			Entries: g.Entries, Bytes: g.Bytes,
			Oldest: g.Oldest.UTC().Format(time.RFC3339), Newest: g.Newest.UTC().Format(time.RFC3339),
		})
	}
	if out.json {
		return out.printCacheObject(r)
	}
	if len(r.Groups) > 0 {
		t := tabwriter.NewWriter(out.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprint(t, "KEY\tKEY ID\tHASH\tENTRIES\tBYTES\tOLDEST\tNEWEST\n")
		for _, g := range r.Groups {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%.10s\t%.10s\n", g.Identity[:16], orDash(g.KeyID), g.Hash, g.Entries, g.Bytes, g.Oldest, g.Newest)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out.stdout, "%s: %s signatures, %s bytes\n", printable(path), thousands(int64(entries)), thousands(stats.Bytes))
	return err
}

func entriesOf(s cache.FileStats) (n int) {
	for _, g := range s.Groups {
		n += g.Entries
	}
	return n
}

// cacheKeys returns the keys of certificates, and their key ids by identity.
func cacheKeys(ctx context.Context, certRefs []string) (names map[[sha256.Size]byte]string, public []crypto.PublicKey, err error) {
	certs, err := loadAll(ctx, certRefs)
	if err != nil {
		return nil, nil, err
	}
	names = map[[sha256.Size]byte]string{}
	for _, cert := range certs {
		identity, err := cache.Identity(cert.PublicKey)
		if err != nil {
			return nil, nil, err
		}
		id, err := sign.KeyIDFromCertificate(cert)
		if err != nil {
			return nil, nil, err
		}
		names[identity] = id.String()
		public = append(public, cert.PublicKey)
	}
	return names, public, nil
}

type cacheTrimOptions struct {
	json  bool
	size  byteSize
	days  int
	keys  []string
	certs []string
}

func newCacheTrimCommand() *cobra.Command {
	var o cacheTrimOptions
	cmd := &cobra.Command{
		Use:   "trim FILE",
		Short: "Make a cache smaller",
		Long: strings.TrimSpace(`
Writes FILE anew without what the flags say, and without room that is free. With
--size the newest signatures stay that fit. A damaged file keeps what can be read of
it.`),
		Example: examples(
			`imaseal cache trim --size 100M signatures.db`,
			`imaseal cache trim --older-than 180 signatures.db`,
			`imaseal cache trim --cert keys/signing.crt signatures.db`),
		Args: oneCache,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := (&outputFlags{json: o.json}).open(cmd)
			return runCacheTrim(cmd.Context(), out, &o, args[0], time.Now())
		},
	}
	fl := cmd.Flags()
	fl.Var(&o.size, "size", "leave a file of at most `SIZE` bytes, such as 64M or 2G")
	fl.Lookup("size").DefValue = ""
	fl.IntVar(&o.days, "older-than", 0, "remove what was not written or moved up in the last `DAYS`")
	fl.StringArrayVar(&o.keys, "identity", nil, "remove all of the key whose identity begins with `HEX`, 8 digits at least; may be repeated")
	fl.StringArrayVar(&o.certs, "cert", nil, "remove all of the keys of the certificates in `FILE`; may be repeated")
	fl.BoolVar(&o.json, "json", false, "print one JSON object")
	return cmd
}

func runCacheTrim(ctx context.Context, out *output, o *cacheTrimOptions, path string, now time.Time) error {
	if o.days < 0 {
		return fmt.Errorf("--older-than %d: a number of days is needed", o.days)
	}
	names, _, err := cacheKeys(ctx, o.certs)
	if err != nil {
		return err
	}
	for _, key := range o.keys {
		if strings.Trim(key, "0123456789abcdef") != "" || len(key) < 8 || len(key) > 2*sha256.Size {
			return fmt.Errorf("--identity %q: give 8 to 64 hexadecimal digits, in lower case, as imaseal cache stats prints them", key)
		}
	}
	trim := cache.TrimOptions{MaxBytes: int64(o.size)}
	if o.days > 0 {
		trim.Before = now.AddDate(0, 0, -o.days)
	}
	trim.Remove = func(identity [sha256.Size]byte) bool {
		if _, named := names[identity]; named {
			return true
		}
		for _, key := range o.keys {
			if strings.HasPrefix(hex.EncodeToString(identity[:]), key) {
				return true
			}
		}
		return false
	}
	had, has, err := cache.Trim(path, trim)
	if err != nil {
		return err
	}
	before, after := entriesOf(had), entriesOf(has)
	if out.json {
		return out.printCacheObject(cacheReport{
			Path: path, Action: "trimmed", Verdict: verdictOK,
			Bytes: has.Bytes, BytesBefore: had.Bytes, Entries: &after, Before: &before,
		})
	}
	_, err = fmt.Fprintf(out.stdout, "%s: %s of %s signatures left, %s of %s bytes\n", printable(path),
		thousands(int64(after)), thousands(int64(before)), thousands(has.Bytes), thousands(had.Bytes))
	return err
}

type cacheVerifyOptions struct {
	json, remove bool
	certs        []string
}

func newCacheVerifyCommand() *cobra.Command {
	var o cacheVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify --cert CERT FILE",
		Short: "Verify the signatures in a cache",
		Long: strings.TrimSpace(`
Verifies every signature in FILE that is by the key of a CERT. sign does so with each
that it uses, so a bad one is a curiosity and no danger: somebody wrote to the file
who was not to.`) + "\n" + exitStatusHelp,
		Example: examples(`imaseal cache verify --cert keys/signing.crt --remove signatures.db`),
		Args:    oneCache,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := (&outputFlags{json: o.json}).open(cmd)
			return runCacheVerify(cmd.Context(), out, &o, args[0])
		},
	}
	cmd.Flags().StringArrayVar(&o.certs, "cert", nil, "verify the signatures by the keys of the certificates in `FILE`; may be repeated (required)")
	cmd.Flags().BoolVar(&o.remove, "remove", false, "remove bad signatures")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	if err := cmd.MarkFlagRequired("cert"); err != nil {
		panic(err)
	}
	return cmd
}

func runCacheVerify(ctx context.Context, out *output, o *cacheVerifyOptions, path string) error {
	names, public, err := cacheKeys(ctx, o.certs)
	if err != nil {
		return err
	}
	v, err := cache.Verify(ctx, path, public, o.remove)
	if err != nil {
		return err
	}
	r := cacheReport{Path: path, Action: actionVerified, Verdict: verdictOK, Checked: &v.Checked, Other: &v.Other, Removed: &v.Removed}
	for _, bad := range v.Bad {
		r.Verdict = verdictFailed
		r.Bad = append(r.Bad, cacheBad{hex.EncodeToString(bad.Identity[:]), bad.Hash.String(), hex.EncodeToString(bad.Digest)})
		if !out.json {
			fmt.Fprintf(out.stdout, "%s: bad signature of key %s over the %s %x\n", printable(path), names[bad.Identity], bad.Hash, bad.Digest)
		}
	}
	if out.json {
		err = out.printCacheObject(r)
	} else {
		text := fmt.Sprintf("%s of %s signatures are good", thousands(int64(v.Checked-len(v.Bad))), thousands(int64(v.Checked)))
		if v.Removed > 0 {
			text += fmt.Sprintf(", %s removed", thousands(int64(v.Removed)))
		}
		if v.Other > 0 {
			text += fmt.Sprintf("; %s of other keys", thousands(int64(v.Other)))
		}
		_, err = fmt.Fprintf(out.stdout, "%s: %s\n", printable(path), text)
	}
	if err == nil && len(v.Bad) > 0 {
		return exitCode(exitFailed)
	}
	return err
}
