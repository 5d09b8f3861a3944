package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// imageUUID is that of each root file system.
const imageUUID = "6c616267-6c61-4267-8c61-62676c616267"

// build builds the packages of imaseal, signed by key, and takes the programs under
// test from them, so that every boot is of what the tree holds now. Boots one after the
// other with the same key share them, until close.
func (l *lab) build(ctx context.Context, key signingKey) error {
	if l.builtBy == key.name {
		return nil
	}
	l.close()
	dir, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	l.built = dir
	defer l.step("building imaseal's packages")()
	l.packages = filepath.Join(dir, "packages")
	if err := l.run(ctx, l.source, nil, "scripts/package", "--key", key.key, "--cert", key.cert, "--arch", "amd64", l.packages); err != nil {
		return err
	}
	strangers, err := filepath.Glob(filepath.Join(l.packages, "imaseal-kms-*.deb")) // they sign, elsewhere
	if err != nil {
		return err
	}
	for _, deb := range strangers {
		if err := os.Remove(deb); err != nil {
			return err
		}
	}
	for name, file := range map[string]*string{"imaseal_": &l.imaseal, "imaseal-installer_": &l.hook} {
		deb, err := findOne(l.packages, name+"*.deb")
		if err != nil {
			return err
		}
		tree := filepath.Join(dir, name)
		if err := l.run(ctx, "", nil, "dpkg-deb", "-x", deb, tree); err != nil {
			return err
		}
		*file, err = findOne(tree, "usr/bin/imaseal", "usr/lib/imaseal/dpkg-deb")
		if err != nil {
			return err
		}
	}
	l.builtBy = key.name
	return nil
}

// close removes what build built.
func (l *lab) close() {
	if l.built != "" {
		os.RemoveAll(l.built)
	}
	l.built, l.builtBy = "", ""
}

// buildKey is a short name of what the programs under test are.
func (l *lab) buildKey() (string, error) {
	sum := sha256.New()
	for _, program := range []string{l.imaseal, l.hook} {
		f, err := os.Open(program)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// script runs one of the repository's scripts and returns the folder it prints.
func (l *lab) script(ctx context.Context, name string, args ...string) (string, error) {
	out, err := l.output(ctx, l.source, filepath.Join(l.source, "scripts", name), args...)
	return strings.TrimSpace(out), err
}

// signedPackages returns a folder of the packages of a suite's minimal system, and
// those besides that are listed with commas, as they are in Debian's archive and
// signed by key.
func (l *lab) signedPackages(ctx context.Context, suite, besides string, key signingKey) (string, error) {
	root, err := l.script(ctx, "debian-root", suite, besides)
	if err != nil {
		return "", err
	}
	return l.signed(ctx, strings.TrimSuffix(strings.ReplaceAll("packages-"+suite+","+besides, ",", "-"), "-"), filepath.Join(root, "var/cache/apt/archives"), key)
}

// signed returns a copy of the folder from whose packages are signed by key.
func (l *lab) signed(ctx context.Context, name, from string, key signingKey) (string, error) {
	build, err := l.buildKey()
	if err != nil {
		return "", err
	}
	dir, err := l.made(fmt.Sprintf("%s-%s-%s", name, key.name, build), func(dir string) error {
		packages, err := filepath.Glob(filepath.Join(from, "*.deb"))
		if err != nil || len(packages) == 0 {
			return fmt.Errorf("%s holds no packages", from)
		}
		return l.run(ctx, "", nil, l.imaseal, append([]string{"sign", "--quiet", "--key", key.key, "--cert", key.cert,
			"--output", dir}, packages...)...)
	})
	if err == nil {
		l.forget(name+"-"+key.name+"-", dir)
	}
	return dir, err
}

// forget removes folders of the cache that begin like keep and are of older builds.
func (l *lab) forget(prefix, keep string) {
	old, _ := filepath.Glob(filepath.Join(l.cache, prefix+"*"))
	for _, dir := range old {
		if strings.TrimSuffix(dir, ".lock") != keep {
			os.RemoveAll(dir)
		}
	}
}

// bareRoot copies what debootstrap made of a suite's packages to dir, and returns the
// folder of the same packages, signed.
func (l *lab) bareRoot(ctx context.Context, dir, suite, besides string, key signingKey) (packages string, err error) {
	base, err := l.script(ctx, "debian-root", suite, besides)
	if err != nil {
		return "", err
	}
	if packages, err = l.signedPackages(ctx, suite, besides, key); err != nil {
		return "", err
	}
	if err := l.run(ctx, "", nil, "cp", "-a", base+"/.", dir); err != nil {
		return "", err
	}
	return packages, l.run(ctx, "", nil, "sh", "-c", `rm -f "$1"/var/cache/apt/archives/*.deb`, "sh", dir)
}

// systemRoot makes, in dir, a minimal system of the suite as an administrator
// makes one: what debootstrap made of the archive's packages gets the signatures of
// the same packages, signed, and the hook.
func (l *lab) systemRoot(ctx context.Context, dir, suite, besides string, key signingKey) error {
	packages, err := l.bareRoot(ctx, dir, suite, besides, key)
	if err != nil {
		return err
	}
	defer l.step("labelling a root of %s", suite)()
	if err := l.run(ctx, "", nil, l.imaseal, "apply", "--quiet", "--root", dir, "--cert", key.cert, "--from", packages); err != nil {
		return err
	}
	return l.installHook(ctx, dir, key)
}

// installHook installs our own packages in the root, through the hook that they
// bring, and switches the hook on for apt.
func (l *lab) installHook(ctx context.Context, root string, key signingKey) error {
	debs, err := filepath.Glob(filepath.Join(l.packages, "*.deb"))
	if err != nil {
		return err
	}
	if err := l.dpkg(ctx, root, append([]string{"-i"}, debs...)...); err != nil {
		return err
	}
	if err := l.run(ctx, "", nil, "cp", key.cert, filepath.Join(root, "etc/imaseal/certs/lab.crt")); err != nil {
		return err
	}
	return l.run(ctx, "", nil, l.imaseal, "hook", "enable", "--scope", "apt", "--root", root)
}

// dpkg runs this machine's dpkg on a root, with the hook in front of its own dpkg-deb.
// The hook would write the log of this machine, which is out of its sight.
func (l *lab) dpkg(ctx context.Context, root string, args ...string) error {
	path := "PATH=" + filepath.Dir(l.hook) + ":" + os.Getenv("PATH")
	const unlogged = `mount -t tmpfs tmpfs /var/log && exec dpkg "$@"`
	return l.run(ctx, "", []string{path}, "unshare", append([]string{"--mount", "sh", "-c", unlogged, "sh", "--root=" + root, "--force-unsafe-io"}, args...)...)
}

// image makes a file system image of a folder, whose labels it keeps.
func (l *lab) image(ctx context.Context, root, file string) error {
	defer l.step("making an image of the root")()
	return l.run(ctx, "", nil, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-b", "4096", "-I", "512",
		"-U", imageUUID, "-d", root, file, "2G")
}
