package remote

// This file holds which failures are worth another try.

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
