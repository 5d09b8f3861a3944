package remote

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallsBecomeBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: 10 * time.Millisecond}
		s := f.open(t.Context(), Options{InFlight: 4, Batch: 250})
		defer s.Close()
		mustSignAll(t, s, 10000)
		if n := len(f.requests); n > 45 {
			t.Errorf("%d requests for 10000 digests: %v", n, f.requests)
		}
		if f.most != 4 || slices.Max(f.requests) != 250 {
			t.Errorf("%d requests at once, of %d digests at most", f.most, slices.Max(f.requests))
		}
		if s.Jobs() != 1000 || s.Public() != "public" {
			t.Errorf("%d jobs, public %v", s.Jobs(), s.Public())
		}
	})
}

func TestBatchesAreOfOneHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond}
		s := f.open(t.Context(), Options{InFlight: 2, Batch: 10})
		defer s.Close()
		var done sync.WaitGroup
		for i := range 40 {
			done.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = s.Sign(nil, digest(i), crypto.SHA256)
				} else {
					sum := sha512.Sum512(digest(i))
					_, err = s.Sign(nil, sum[:], crypto.SHA512)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		if f.hashesInABatch != 1 {
			t.Errorf("%d hashes in a batch", f.hashesInABatch)
		}
	})
}

func TestTemporaryFailuresPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &fake{}
		f.answer = func(n int, batch []Digest) ([]Result, error) {
			if n <= 5 {
				return nil, Temporary(errors.New("busy"), 0)
			}
			return good(batch), nil
		}
		s := f.open(t.Context(), Options{InFlight: 4, Batch: 10})
		defer s.Close()
		mustSignAll(t, s, 100)
		// Five pauses that double from half a second, each half random.
		if took := time.Since(start); took < 7750*time.Millisecond || took > 15500*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		if len(f.notes) != 2 || !strings.HasPrefix(f.notes[0], "the fake: busy: trying again for 2m0s") ||
			!strings.Contains(f.notes[1], "well again after") || !strings.Contains(f.notes[1], "5 failed requests") {
			t.Errorf("notes: %q", f.notes)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for ask, want := range map[time.Duration]time.Duration{30 * time.Second: 30 * time.Second, time.Hour: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			f := &fake{}
			f.answer = func(n int, batch []Digest) ([]Result, error) {
				if n == 1 {
					return nil, Temporary(errors.New("throttled"), ask)
				}
				return good(batch), nil
			}
			s := f.open(t.Context(), Options{})
			defer s.Close()
			mustSignAll(t, s, 1)
			if took := time.Since(start); took != want {
				t.Errorf("%s were asked for, and it took %s", ask, took)
			}
		})
	}
}

func TestDeadServiceIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &fake{answer: func(int, []Digest) ([]Result, error) { return nil, Temporary(errors.New("down"), 0) }}
		s := f.open(t.Context(), Options{InFlight: 4, Batch: 10})
		defer s.Close()
		for i, err := range signAll(t, s, 100) {
			if err == nil || !strings.Contains(err.Error(), "the fake: down (asked ") || !strings.Contains(err.Error(), "then given up; mend it)") {
				t.Fatalf("digest %d: %v", i, err)
			}
		}
		if took := time.Since(start); took > 2*time.Minute || took < time.Minute {
			t.Errorf("it took %s", took)
		}
		if len(f.notes) != 1 {
			t.Errorf("notes: %q", f.notes)
		}
		n := len(f.requests)
		if n < 5 || n > 20 {
			t.Errorf("%d requests", n)
		}
		if err := signAll(t, s, 1)[0]; err == nil || len(f.requests) != n {
			t.Errorf("it was asked again: %v", err)
		}
	})
}

func TestHangingServiceIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &fake{takes: time.Hour}
		s := f.open(t.Context(), Options{InFlight: 4, Batch: 10, Timeout: 30 * time.Second})
		defer s.Close()
		err := signAll(t, s, 20)[0]
		if err == nil || !strings.Contains(err.Error(), "no answer within 30s (asked ") {
			t.Error(err)
		}
		if took := time.Since(start); took > 3*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

func TestPermanentFailureIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond}
		f.answer = func(int, []Digest) ([]Result, error) { return nil, errors.New("permission denied") }
		s := f.open(t.Context(), Options{InFlight: 8, Batch: 10})
		defer s.Close()
		start := time.Now()
		for _, err := range append(signAll(t, s, 500), signAll(t, s, 5)...) {
			if err == nil || err.Error() != "the fake: permission denied" {
				t.Fatal(err)
			}
		}
		if len(f.requests) != 1 || len(f.notes) != 0 || time.Since(start) != time.Millisecond {
			t.Errorf("requests %v, notes %q, after %s", f.requests, f.notes, time.Since(start))
		}
	})
}

// TestRefusedAtFirst has a service that answers, and signs nothing by one of two hashes:
// it is asked once by that one, whoever else waits or comes.
func TestRefusedAtFirst(t *testing.T) {
	asked := 0
	f := &fake{answer: func(_ int, batch []Digest) ([]Result, error) {
		if batch[0].Hash == crypto.SHA512 {
			return good(batch), nil
		}
		asked += len(batch)
		return []Result{{Err: errors.New("access denied")}}, nil
	}}
	s := f.open(t.Context(), Options{InFlight: 4})
	defer s.Close()
	for range 2 {
		for _, err := range signAll(t, s, 100) {
			if err == nil || err.Error() != "the fake: access denied" {
				t.Fatal(err)
			}
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	long := make([]byte, crypto.SHA512.Size())
	if _, err := s.Sign(nil, long, crypto.SHA512); err != nil {
		t.Error(err)
	}
}

func TestPartOfABatchIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Second}
		f.answer = func(n int, batch []Digest) ([]Result, error) {
			results := good(batch)
			for i, d := range batch {
				switch {
				case slices.Equal(d.Sum, digest(3)):
					results[i] = Result{Err: errors.New("refused")}
				case slices.Equal(d.Sum, digest(4)):
					results[i] = Result{Err: Temporary(errors.New("never"), 0)}
				case n > 1 && n <= 3 && d.Sum[0]%2 == 0:
					results[i] = Result{Err: Temporary(errors.New("later"), time.Second)}
				}
			}
			return results, nil
		}
		s := f.open(t.Context(), Options{InFlight: 1, Batch: 50})
		defer s.Close()
		// The others wait for this one, so none of them is alone in a request.
		begin(s, 100)
		for i, err := range signAll(t, s, 100) {
			want := map[int]string{3: "the fake: refused", 4: "the fake: never (asked "}[i]
			if text := fmt.Sprint(err); want != "" && !strings.HasPrefix(text, want) || want == "" && err != nil {
				t.Errorf("digest %d: %v", i, err)
			}
		}
		total := 0
		for _, n := range f.requests {
			total += n
		}
		if total > 1+100+60+20 {
			t.Errorf("more was asked again than what failed: %v", f.requests)
		}
	})
}

// TestOneDigestFails has one digest fail for the moment all the time, while others
// succeed.
func TestOneDigestFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Second}
		f.answer = func(n int, batch []Digest) ([]Result, error) {
			results := good(batch)
			for i, d := range batch {
				if slices.Equal(d.Sum, digest(400)) {
					results[i] = Result{Err: Temporary(errors.New("never"), 0)}
				}
			}
			return results, nil
		}
		s := f.open(t.Context(), Options{InFlight: 2, Batch: 1})
		defer s.Close()
		mustSignAll(t, s, 1) // a service that fails the first of all is given up
		failed := begin(s, 400)
		time.Sleep(f.takes / 2) // so that no two requests end at one moment, in either order
		mustSignAll(t, s, 400)
		if err := <-failed; err == nil || err.Error() != "the fake: never (asked 8 times while others succeeded)" {
			t.Error(err)
		}
		// During the first try of it nobody else succeeded.
		if n := len(f.requests); n != 1+400+9 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestComingAndGoing has every second request fail, all the time.
func TestComingAndGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		f.answer = func(n int, batch []Digest) ([]Result, error) {
			if n%2 == 0 {
				return nil, Temporary(errors.New("busy"), 0)
			}
			return good(batch), nil
		}
		s := f.open(t.Context(), Options{InFlight: 1, Batch: 1})
		defer s.Close()
		start := time.Now()
		mustSignAll(t, s, 400)
		if limit := 2 + 2*int(time.Since(start)/noteEvery); len(f.notes) > limit {
			t.Errorf("%d notes in %s", len(f.notes), time.Since(start))
		}
	})
}

func TestWrongNumberOfResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(_ int, batch []Digest) ([]Result, error) { return good(batch)[1:], nil }}
		s := f.open(t.Context(), Options{})
		defer s.Close()
		if err := signAll(t, s, 1)[0]; err == nil || err.Error() != "the fake: 0 results for 1 digests" {
			t.Error(err)
		}
	})
}

func TestTheContextEnds(t *testing.T) {
	for name, f := range map[string]*fake{
		"in a request": {takes: time.Hour},
		"in a pause":   {answer: func(int, []Digest) ([]Result, error) { return nil, Temporary(errors.New("busy"), time.Minute) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				s := f.open(ctx, Options{InFlight: 2, Batch: 3, Timeout: 2 * time.Hour})
				time.AfterFunc(20*time.Second, cancel)
				start := time.Now()
				for _, err := range signAll(t, s, 20) {
					if !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
				}
				if took := time.Since(start); took != 20*time.Second {
					t.Errorf("it took %s", took)
				}
				s.Close()
				if err := signAll(t, s, 1)[0]; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Hour}
		s := f.open(t.Context(), Options{})
		go func() { time.Sleep(time.Second); s.Close() }()
		for _, err := range signAll(t, s, 3) {
			if !errors.Is(err, errClosed) {
				t.Error(err)
			}
		}
	})
}

func TestSignRefuses(t *testing.T) {
	s := (&fake{}).open(t.Context(), Options{})
	defer s.Close()
	for name, sign := range map[string]func() ([]byte, error){
		"PSS":          func() ([]byte, error) { return s.Sign(nil, digest(0), &rsa.PSSOptions{Hash: crypto.SHA256}) },
		"short digest": func() ([]byte, error) { return s.Sign(nil, digest(0)[1:], crypto.SHA256) },
		"SHA-1":        func() ([]byte, error) { return s.Sign(nil, digest(0)[:20], crypto.SHA1) },
		"no hash":      func() ([]byte, error) { return s.Sign(nil, digest(0), crypto.Hash(0)) },
	} {
		if _, err := sign(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		err := Retry(t.Context(), Options{Name: "it"}, func(context.Context) error {
			if n++; n < 4 {
				return Temporary(errors.New("busy"), 0)
			}
			return nil
		})
		if err != nil || n != 4 {
			t.Errorf("%d tries: %v", n, err)
		}
		n = 0
		err = Retry(t.Context(), Options{Name: "it"}, func(context.Context) error { n++; return errors.New("no") })
		if err == nil || err.Error() != "it: no" || n != 1 {
			t.Errorf("%d tries: %v", n, err)
		}
		start := time.Now()
		err = Retry(t.Context(), Options{Name: "it", Patience: 20 * time.Second}, func(context.Context) error { return Temporary(errors.New("busy"), 0) })
		if err == nil || !strings.Contains(err.Error(), "then given up") || time.Since(start) > 20*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = Retry(ctx, Options{}, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
