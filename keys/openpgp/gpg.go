package openpgp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A gpgKey signs with gpg, which keeps the secret half in its agent or on a card.
type gpgKey struct {
	primary, fpr string // fingerprints of the primary key and of the one that signs
	digest       string // the hash that signatures are over
	now          time.Time
}

// openGPG asks gpg for the key, and makes one signature over nothing, so that a
// passphrase or PIN is asked for, and a missing card noticed, before any work.
func openGPG(ctx context.Context, fingerprint string, now time.Time) (*Key, error) {
	fpr := strings.ToUpper(strings.TrimPrefix(strings.ReplaceAll(fingerprint, " ", ""), "0x"))
	if _, err := hex.DecodeString(fpr); err != nil || len(fpr) < 16 {
		return nil, fmt.Errorf("gpg:%s: name the key by its fingerprint (or 16 digits of it), as gpg --list-secret-keys shows it", fingerprint)
	}
	listing, err := runGPG(ctx, nil, "--with-colons", "--with-fingerprint", "--with-fingerprint", "--list-secret-keys", fpr)
	if err != nil {
		return nil, fmt.Errorf("gpg:%s: %w", fingerprint, err)
	}
	k, err := chooseGPGKey(listing, fpr, now)
	if err != nil {
		return nil, fmt.Errorf("gpg:%s: %w", fingerprint, err)
	}
	key := &Key{maker: k}
	public, err := runGPG(ctx, nil, "--export", k.primary)
	if err != nil {
		return nil, err
	}
	if key.own, err = parseKeyring(public); err != nil {
		key.own = nil
		key.Note = fmt.Sprintf("gpg:%s: its signatures cannot be checked: %v", fingerprint, err)
	}
	if _, err := key.Detach(ctx, bytes.NewReader(nil)); err != nil {
		return nil, fmt.Errorf("gpg:%s: %w", fingerprint, err)
	}
	return key, nil
}

// A gpgSubkey is a key or subkey in gpg's listing.
type gpgSubkey struct {
	fpr, validity, capabilities, curve string
	bits                               int
	created                            time.Time
	stub                               bool // the secret half is elsewhere
}

func (s gpgSubkey) canSign() bool {
	return strings.Contains(s.capabilities, "s") && !strings.ContainsAny(s.validity, "redin") && !s.stub
}

// digest names the hash that is long enough for the key's curve; gpg refuses a
// shorter one.
func (s gpgSubkey) digest() string {
	switch edwards := strings.HasPrefix(s.curve, "ed"); {
	case s.curve == "" || edwards || s.bits <= 256:
		return "SHA256"
	case s.bits <= 384:
		return "SHA384"
	}
	return "SHA512"
}

// chooseGPGKey takes from gpg's listing the key that fpr names, or its newest
// signing subkey where that is a primary key, as gpg does. It is chosen here, by the
// clock: gpg would go by the time that signatures are made to state, at which a
// subkey that has expired since was valid.
func chooseGPGKey(listing []byte, fpr string, now time.Time) (*gpgKey, error) {
	all, err := parseGPGListing(listing)
	if err != nil {
		return nil, err
	}
	named := slices.IndexFunc(all, func(s gpgSubkey) bool { return strings.HasSuffix(s.fpr, fpr) })
	if named < 0 {
		return nil, errors.New("gpg has no such secret key")
	}
	primary := all[0]
	if !strings.Contains(primary.capabilities, "S") { // of the key as a whole
		return nil, gpgUnusable(primary.validity)
	}
	chosen := all[named]
	if named == 0 {
		for _, s := range all[1:] {
			if s.canSign() && (chosen.fpr == primary.fpr || !s.created.Before(chosen.created)) {
				chosen = s
			}
		}
	}
	if !chosen.canSign() {
		return nil, gpgUnusable(chosen.validity)
	}
	// A signature that states a time before its key was made is taken by nobody.
	if now.Before(chosen.created) {
		now = chosen.created
	}
	return &gpgKey{primary.fpr, chosen.fpr, chosen.digest(), now}, nil
}

// parseGPGListing reads gpg's colon format, doc/DETAILS of GnuPG: the primary key
// and its subkeys. Fields, from 0: record, validity, bits, algorithm, key id,
// creation, expiry, …, 9 fingerprint or user, 11 capabilities, 14 token, 16 curve.
func parseGPGListing(listing []byte) ([]gpgSubkey, error) {
	var all []gpgSubkey
	lines := bufio.NewScanner(bytes.NewReader(listing))
	for lines.Scan() {
		// A record ends where it has nothing more to say: fpr after the fingerprint.
		f := append(strings.Split(lines.Text(), ":"), make([]string, 17)...)
		switch f[0] {
		case "sec", "ssb":
			if f[0] == "sec" && len(all) > 0 {
				return nil, errors.New("several keys have it: name one by its whole fingerprint")
			}
			s := gpgSubkey{validity: f[1], capabilities: f[11], curve: f[16], stub: f[14] == "#"}
			s.bits, _ = strconv.Atoi(f[2])
			created, err := strconv.ParseInt(f[5], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("gpg lists a key made at %q", f[5])
			}
			s.created = time.Unix(created, 0)
			all = append(all, s)
		case "fpr":
			if len(all) > 0 {
				all[len(all)-1].fpr = f[9]
			}
		}
	}
	return all, lines.Err()
}

func gpgUnusable(validity string) error {
	reason, ok := map[string]string{"e": "is expired", "r": "is revoked", "d": "is disabled", "i": "is invalid"}[validity]
	if !ok {
		reason = "cannot sign"
	}
	return fmt.Errorf("the key %s", reason)
}

func (k *gpgKey) detach(ctx context.Context, r io.Reader) ([]byte, error) {
	return k.run(ctx, r, "--detach-sign", "--no-armor")
}

func (k *gpgKey) clearSign(ctx context.Context, text []byte) ([]byte, error) {
	return k.run(ctx, bytes.NewReader(text), "--clear-sign")
}

func (k *gpgKey) run(ctx context.Context, r io.Reader, verb ...string) ([]byte, error) {
	// Frozen, as a build's time is; validity was judged by the clock before.
	args := []string{"--faked-system-time", strconv.FormatInt(k.now.Unix(), 10) + "!",
		"--digest-algo", k.digest, "--local-user", k.fpr + "!"}
	out, status, err := gpg(ctx, r, append(args, verb...)...)
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(status, "\n") {
		// [GNUPG:] SIG_CREATED type algorithm hash class time fingerprint
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "SIG_CREATED" {
			continue
		}
		if strings.EqualFold(f[7], k.fpr) {
			return out, nil
		}
		return nil, fmt.Errorf("gpg signed with key %s, which is not the one that was asked for", f[7])
	}
	return nil, errors.New("gpg did not say that it made a signature")
}

// maxGPGOutput bounds what gpg may write, in bytes.
const maxGPGOutput = maxKeyring

func runGPG(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	out, _, err := gpg(ctx, stdin, args...)
	return out, err
}

// gpg runs gpg and returns what it wrote, and its status lines.
func gpg(ctx context.Context, stdin io.Reader, args ...string) (out []byte, status string, err error) {
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	defer statusRead.Close()
	defer statusWrite.Close()
	stdout, stderr := &boundedBuffer{room: maxGPGOutput}, &boundedBuffer{room: 64 << 10}
	cmd := exec.CommandContext(ctx, "gpg", append([]string{"--batch", "--no-tty", "--status-fd", "3"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.ExtraFiles = []*os.File{statusWrite}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("running gpg: %w", err)
	}
	statusWrite.Close()
	lines := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(statusRead, 1<<20))
		lines <- string(text)
	}()
	err = cmd.Wait()
	status = <-lines
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	if err != nil {
		return nil, "", fmt.Errorf("gpg failed: %s", gpgReason(stderr.kept.String(), err))
	}
	if stdout.full {
		return nil, "", fmt.Errorf("gpg wrote more than %d bytes", maxGPGOutput)
	}
	return stdout.kept.Bytes(), status, nil
}

// gpgReason returns gpg's last word, which says why.
func gpgReason(stderr string, err error) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return strings.TrimPrefix(last, "gpg: ")
	}
	return err.Error()
}

// A boundedBuffer keeps what fits and swallows the rest. The buffer is not
// embedded: io.Copy would find its ReadFrom, which knows no bound.
type boundedBuffer struct {
	kept bytes.Buffer
	room int
	full bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	keep := p[:min(len(p), b.room)]
	b.full = b.full || len(keep) < len(p)
	b.room -= len(keep)
	b.kept.Write(keep)
	return len(p), nil
}
