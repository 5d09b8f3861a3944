// Kernellab boots kernels that enforce appraisal and asks them what they think of
// files that imaseal signed. Call it by scripts/lab.
//
// A boot is a kernel, an initramfs with the program of folder guest as its init, an
// image of a root file system, and a plan (package plan) of what is tried and
// expected. The records that come back are compared, counted and shown.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
)

const usage = `Boots kernels that enforce appraisal and asks them about files that imaseal signed.

  scripts/lab build          make kernels, packages and root file systems, once
  scripts/lab run [--kernel NAME]... CASE...
                             run cases by number on kernel A or those named; "all" is
                             all cases on all kernels, some 40 minutes; prints a table,
                             and where the records are
  scripts/lab shell          a shell in kernel A, with everything signed
  scripts/lab list           list the cases and the kernels
  scripts/lab clean          remove everything that was made

Artifacts are kept in the folder lab below $IMASEAL_CACHE, or ~/.cache/imaseal.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Print(usage)
		return nil
	}
	l, err := newLab()
	if err != nil {
		return err
	}
	defer l.close()
	switch args[0] {
	case "build":
		return l.buildAll(ctx)
	case "run":
		return l.runCases(ctx, args[1:], os.Stdout)
	case "shell":
		return l.shell(ctx)
	case "list":
		for _, c := range cases {
			if c.boot.besides != "" {
				continue // another boot of the same case
			}
			fmt.Printf("case %d     %s\n", c.number, c.title)
		}
		fmt.Println("kernel A   Linux 6.12 as a program (User-Mode Linux), a CA built in, keyring .ima")
		for _, s := range stocks {
			fmt.Printf("kernel %-4s Debian's own of %s in QEMU, keyring _ima\n", s.name, s.suite)
		}
		return nil
	case "clean":
		return os.RemoveAll(l.cache)
	}
	return errors.New("unknown command " + args[0] + "\n" + usage)
}

// buildAll makes what boots need.
func (l *lab) buildAll(ctx context.Context) error {
	_, err := l.kernels(ctx, []string{"all"})
	return err
}

// kernels returns the kernels of those names, kernel A when there are none, and all
// for "all".
func (l *lab) kernels(ctx context.Context, names []string) ([]*kernel, error) {
	var found []*kernel
	if len(names) == 0 || slices.Contains(names, "A") || slices.Contains(names, "all") {
		k, err := l.umlKernel(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, k)
	}
	for _, s := range stocks {
		if !slices.Contains(names, s.name) && !slices.Contains(names, "all") {
			continue
		}
		k, err := l.stockKernel(ctx, s)
		if err != nil {
			return nil, err
		}
		found = append(found, k)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no kernel %s: see scripts/lab list", strings.Join(names, ", "))
	}
	return found, nil
}

// runCases boots kernels with cases: "--kernel NAME" and numbers of cases, all of
// them when there are none or "all", which stands for all kernels, too. It prints what
// came of it.
func (l *lab) runCases(ctx context.Context, args []string, w io.Writer) error {
	var names, numbers []string
	for len(args) > 0 {
		if args[0] == "--kernel" && len(args) > 1 {
			names, args = append(names, args[1]), args[2:]
			continue
		}
		numbers, args = append(numbers, args[0]), args[1:]
	}
	if len(names) == 0 && slices.Contains(numbers, "all") {
		names = []string{"all"}
	}
	kernels, err := l.kernels(ctx, names)
	if err != nil {
		return err
	}
	r, err := openResults(filepath.Join(l.cache, "results"))
	if err != nil {
		return err
	}
	defer r.file.Close()
	var failed error
	for _, k := range kernels {
		for _, b := range boots() {
			if err := l.runOn(ctx, k, b, numbers, r); err != nil {
				failed = errors.Join(failed, fmt.Errorf("kernel %s: %w", k.name, err))
			}
		}
	}
	if wanted(numbers, 7) {
		if err := l.systemBoot(ctx, r); err != nil {
			failed = errors.Join(failed, fmt.Errorf("case 7: %w", err))
		}
	}
	wrong := r.print(w)
	table, err := r.writeMarkdown()
	failed = errors.Join(failed, err)
	fmt.Fprintf(w, "records: %s\ntable:   %s\n", r.file.Name(), table)
	if wrong > 0 {
		failed = errors.Join(failed, fmt.Errorf("%d checks were not as expected", wrong))
	}
	return errors.Join(failed, r.file.Close())
}

// runOn boots k with the cases of those numbers that are of this boot. Where there are
// none it does nothing.
func (l *lab) runOn(ctx context.Context, k *kernel, b boot, numbers []string, r *results) error {
	chosen := slices.DeleteFunc(slices.Clone(cases), func(c labCase) bool {
		return c.prepare == nil || c.boot != b || !wanted(numbers, c.number)
	})
	if len(chosen) == 0 {
		return nil
	}
	work, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	s, err := l.newScene(ctx, k, work, b.besides)
	if err != nil {
		return err
	}
	for _, c := range chosen {
		err := c.prepare(s, ctx)
		if reason := skip(""); errors.As(err, &reason) {
			fmt.Fprintf(l.log, "lab: case %d on kernel %s: %v\n", c.number, k.name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("preparing case %d: %w", c.number, err)
		}
	}
	image := filepath.Join(work, "image")
	if err := l.image(ctx, s.root, image); err != nil {
		return err
	}
	defer l.step("kernel %s", k.name)()
	if err := l.boot(ctx, k, s.plan, s.files, image, s.then != nil, r.add); err != nil || s.then == nil {
		return err
	}
	return l.boot(ctx, k, *s.then, s.files, image, true, r.add)
}

// shell boots kernel A with everything signed, for a person to look around.
func (l *lab) shell(ctx context.Context) error {
	k, err := l.umlKernel(ctx)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	s, err := l.newScene(ctx, k, work, "")
	if err != nil {
		return err
	}
	s.plan.Shell = true
	image := filepath.Join(work, "image")
	if err := l.image(ctx, s.root, image); err != nil {
		return err
	}
	return l.boot(ctx, k, s.plan, s.files, image, false, func(plan.Record) {})
}

func wanted(numbers []string, number int) bool {
	return len(numbers) == 0 || slices.Contains(numbers, "all") || slices.Contains(numbers, strconv.Itoa(number))
}

// A labCase is a row of the table in docs/verification.md.
type labCase struct {
	number int
	title  string
	boot   boot
	// prepare puts what the case needs into a scene; nil for a boot of its own.
	prepare func(*scene, context.Context) error
}

// A boot is what cases have in common that are tried one after the other.
type boot struct {
	// besides are packages that the system has besides a minimal one.
	besides string
	// alone is the number of a case after which the system is not what it was.
	alone int
}

// boots returns all boots that cases take, in the order of the cases.
func boots() []boot {
	var all []boot
	for _, c := range cases {
		if !slices.Contains(all, c.boot) {
			all = append(all, c.boot)
		}
	}
	return all
}

var cases = []labCase{
	{1, "what is signed runs", boot{}, (*scene).signedRuns},
	{1, "what is signed runs", boot{besides: rpmPackages}, (*scene).signedRPMRuns},
	{2, "what is tampered with does not", boot{}, (*scene).tamperedIsDenied},
	{4, "unsigned packages are refused", boot{}, (*scene).unsignedIsRefused},
	{5, "labels that come afterwards are too late", boot{}, (*scene).afterwardsIsTooLate},
	{6, "modules of signed packages load", boot{}, (*scene).moduleLoads},
	{7, "a machine boots under enforcement", boot{}, nil},
	{8, "what is measured is what was signed", boot{}, (*scene).isMeasured},
	{10, "keyrings take what imaseal says", boot{}, (*scene).keyringsAgree},
	{3, "a system upgrades under enforcement", boot{}, (*scene).systemUpgrades},
	{9, "a key is rolled over", boot{alone: 9}, (*scene).rollOver},
}

func caseTitle(number int) string {
	for _, c := range cases {
		if c.number == number {
			return c.title
		}
	}
	return ""
}

// newLab finds the repository and the cache.
func newLab() (*lab, error) {
	cache, err := cacheFolder()
	if err != nil {
		return nil, err
	}
	source, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
			return &lab{cache: cache, source: source, log: os.Stderr}, nil
		}
		if source == "/" {
			return nil, errors.New("call it inside the repository")
		}
		source = filepath.Dir(source)
	}
}
