package remote

// This file holds which failures are worth another try, and which are a refusal.

import (
	"errors"
	"time"
)

// A temporaryError is one that another try may not meet.
type temporaryError struct {
	err   error
	after time.Duration
}

func (e *temporaryError) Error() string { return e.err.Error() }
func (e *temporaryError) Unwrap() error { return e.err }

// Temporary marks err as one that passes: a throttled request, a service that starts
// again. after is how long the service asked to be left alone, 0 where it did not say.
// It returns nil for a nil err.
func Temporary(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &temporaryError{err, max(after, 0)}
}

// IsTemporary reports whether err, or one that it wraps, was made by [Temporary], and
// how long the service asked to be left alone.
func IsTemporary(err error) (after time.Duration, ok bool) {
	var t *temporaryError
	if !errors.As(err, &t) {
		return 0, false
	}
	return t.after, true
}

// ErrRefused is what the error of a digest is (errors.Is) that a service will not sign,
// though it is well. A digest by another hash it may sign: many keys are tied to one.
var ErrRefused = errors.New("the service refuses to sign")

// A refusal is an error with a text of its own that is ErrRefused.
type refusal struct{ error }

func (r refusal) Is(target error) bool { return target == ErrRefused }
func (r refusal) Unwrap() error        { return r.error }
