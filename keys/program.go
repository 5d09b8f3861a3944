package keys

// This file opens keys in other programs: exec:PROGRAM, and the clouds, each of which
// is such a program.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/imaseal/imaseal/keys/kmsref"
	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

// ErrRefused is what the error of a service's key is that does not sign a digest, and
// may sign one by another hash.
var ErrRefused = remote.ErrRefused

// programFolder is where our packages install signing programs.
const programFolder = "/usr/lib/imaseal"

// openExec opens the key of the program that rest names: a path, or a name to be looked
// up on PATH. What follows a question mark is handed over as the name of the key.
func openExec(ctx context.Context, rest string, o OpenOptions) (*Key, error) {
	name, key, _ := strings.Cut(rest, "?")
	if name == "" {
		return nil, errors.New("key exec:: it should read exec:PROGRAM, or exec:PROGRAM?KEY with the key that the program shall use")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("key exec:%s: %w: name a program with its x bit set, by its path such as ./signer, or one that is on PATH", name, errors.Unwrap(err))
	}
	return openProgram(ctx, path, key, o)
}

// openCloud returns an opener of the keys of a cloud by the program imaseal-kms-NAME,
// which is given the whole reference.
func openCloud(scheme, name string) opener {
	return func(ctx context.Context, rest string, o OpenOptions) (*Key, error) {
		ref := scheme + ":" + rest
		if err := kmsref.Check(ref); err != nil {
			return nil, err
		}
		path, err := findProgram("imaseal-kms-" + name)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", ref, err)
		}
		k, err := openProgram(ctx, path, ref, o)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", ref, err)
		}
		return k, nil
	}
}

func openProgram(ctx context.Context, path, key string, o OpenOptions) (*Key, error) {
	s, err := program.Open(ctx, []string{path}, program.Options{Key: key, Jobs: o.Jobs, Patience: o.Patience, Note: o.Note})
	if err != nil {
		return nil, err
	}
	return &Key{Signer: s, Jobs: s.Jobs(), close: s.Close}, nil
}

// findProgram looks for a signing program beside the running one, where our packages
// install it, and on PATH.
func findProgram(name string) (string, error) {
	folders := []string{programFolder}
	if self, err := os.Executable(); err == nil {
		folders = append([]string{filepath.Dir(self)}, folders...)
	}
	for _, dir := range folders {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("the program %s is not installed (looked for in %s and on PATH): install the package of that name, or build it from keys/kms of imaseal's source with go build ./cmd/%s",
			name, strings.Join(folders, ", "), name)
	}
	return path, nil
}
