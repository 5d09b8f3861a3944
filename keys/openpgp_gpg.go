package keys

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
	"strconv"
	"strings"
	"time"
)

// A gpgKey signs with gpg, which keeps the secret half in its agent or on a card.
type gpgKey struct {
	user    string // for --local-user
	fprs    []string
	minHash map[string]int // bits of a subkey's curve, by fingerprint
	now     time.Time
}

// openGPG asks gpg for the key, and makes one signature over nothing, so that a
// passphrase or PIN is asked for, and a missing card noticed, before any work.
func openGPG(ctx context.Context, fingerprint string, now time.Time) (*OpenPGPKey, error) {
	fpr := strings.ToUpper(strings.TrimPrefix(strings.ReplaceAll(fingerprint, " ", ""), "0x"))
	if _, err := hex.DecodeString(fpr); err != nil || len(fpr) < 16 {
		return nil, fmt.Errorf("gpg:%s: name the key by its fingerprint (or 16 digits of it), as gpg --list-secret-keys shows it", fingerprint)
	}
	listing, err := runGPG(ctx, nil, "--with-colons", "--with-fingerprint", "--with-fingerprint", "--list-secret-keys", fpr)
	if err != nil {
		return nil, fmt.Errorf("gpg:%s: %w", fingerprint, err)
	}
	k, err := parseGPGListing(listing, fpr, now)
	if err != nil {
		return nil, fmt.Errorf("gpg:%s: %w", fingerprint, err)
	}
	key := &OpenPGPKey{maker: k}
	public, err := runGPG(ctx, nil, "--export", k.fprs[0])
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

// parseGPGListing reads gpg's colon format, doc/DETAILS of GnuPG. Fields, from 0:
// record, validity, bits, algorithm, key id, creation, expiry, …, 9 fingerprint or
// user, 11 capabilities, 16 curve.
func parseGPGListing(listing []byte, fpr string, now time.Time) (*gpgKey, error) {
	k := &gpgKey{user: fpr, minHash: map[string]int{}, now: now}
	var validity, curve string
	var bits int
	var named bool
	lines := bufio.NewScanner(bytes.NewReader(listing))
	for lines.Scan() {
		f := strings.Split(lines.Text(), ":")
		if len(f) < 12 {
			continue
		}
		switch f[0] {
		case "sec":
			if len(k.fprs) > 0 {
				return nil, errors.New("several keys have it: name one by its whole fingerprint")
			}
			if !strings.Contains(f[11], "S") {
				return nil, gpgUnusable(f[1])
			}
			fallthrough
		case "ssb":
			validity, curve = f[1], ""
			bits, _ = strconv.Atoi(f[2])
			if len(f) > 16 {
				curve = f[16]
			}
			if created, err := strconv.ParseInt(f[5], 10, 64); err == nil && k.now.Before(time.Unix(created, 0)) && validity != "r" && strings.ContainsAny(f[11], "sS") {
				k.now = time.Unix(created, 0)
			}
		case "fpr":
			k.fprs = append(k.fprs, f[9])
			if curve != "" && !strings.HasPrefix(curve, "ed") && !strings.HasPrefix(curve, "cv") {
				k.minHash[f[9]] = bits
			}
			if !strings.HasSuffix(f[9], fpr) {
				break
			}
			named = true
			if len(k.fprs) > 1 {
				// A subkey that was named is the one that is meant.
				if strings.ContainsAny(validity, "redin") {
					return nil, gpgUnusable(validity)
				}
				k.user = f[9] + "!"
				k.fprs = []string{k.fprs[0], f[9]}
			} else {
				k.user = f[9]
			}
		}
	}
	if len(k.fprs) == 0 || !named {
		return nil, errors.New("gpg has no such secret key")
	}
	return k, nil
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
		"--digest-algo", k.digest(), "--local-user", k.user}
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
		for _, fpr := range k.fprs {
			if strings.EqualFold(f[7], fpr) {
				return out, nil
			}
		}
		return nil, fmt.Errorf("gpg signed with key %s, which is not the one that was asked for", f[7])
	}
	return nil, errors.New("gpg did not say that it made a signature")
}

// digest names the hash that is long enough for the curves of the key; gpg
// refuses a shorter one.
func (k *gpgKey) digest() string {
	longest := 0
	for _, bits := range k.minHash {
		longest = max(longest, bits)
	}
	switch {
	case longest > 384:
		return "SHA512"
	case longest > 256:
		return "SHA384"
	}
	return "SHA256"
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
