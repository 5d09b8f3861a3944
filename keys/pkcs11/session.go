//go:build pkcs11 && cgo

package pkcs11

import (
	"context"
	"errors"
	"runtime"
	"sync"

	p11 "github.com/miekg/pkcs11"
)

// A pool has the sessions of one key with its token. A session works on one thing at a
// time, so who signs takes one and gives it back.
type pool struct {
	m    *module
	slot uint
	// free has a place for each session, 0 for one that is not open yet.
	free chan p11.SessionHandle

	lost chan struct{} // closed with the pool

	mu     sync.Mutex
	size   int  // places, taken ones too
	closed bool // sessions that come back are closed
}

var errPoolClosed = errors.New("the connection to the token was closed")

// newPool makes a pool of size places, with first in one of them unless that is 0.
func newPool(m *module, slot uint, size int, first p11.SessionHandle) *pool {
	p := &pool{m: m, slot: slot, free: make(chan p11.SessionHandle, size), lost: make(chan struct{}), size: size}
	p.free <- first
	for range size - 1 {
		p.free <- 0
	}
	return p
}

// fitting returns how many sessions with t are worth having. A call waits for the
// token, or for a lock of the module, half of the time, so there are more than cores.
func fitting(t *token, wanted int) int {
	n := wanted
	if n <= 0 {
		n = max(4, 2*runtime.GOMAXPROCS(0))
	}
	// 0 is CK_EFFECTIVELY_INFINITE, ~0 CK_UNAVAILABLE_INFORMATION.
	if most := t.MaxSessionCount; most != 0 && most != p11.CK_UNAVAILABLE_INFORMATION && uint(n) > most {
		n = int(most)
	}
	return max(1, min(n, 1024))
}

// take waits for a session, and opens it if need be. A token that has no more of them
// than are open already, as other programs have some, makes the pool smaller.
func (p *pool) take(ctx context.Context) (p11.SessionHandle, error) {
	for {
		var s p11.SessionHandle
		select {
		case s = <-p.free:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		p.mu.Lock()
		closed := p.closed
		p.mu.Unlock()
		if closed {
			p.free <- 0 // for the next who waits
			return 0, errPoolClosed
		}
		if s != 0 {
			return s, nil
		}
		// Only reading: what a session of a read-only token allows.
		s, err := p.m.OpenSession(p.slot, p11.CKF_SERIAL_SESSION)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, p11.Error(p11.CKR_SESSION_COUNT)) || !p.shrink() {
			p.free <- 0
			return 0, err
		}
	}
}

// shrink takes a place away, unless it is the last.
func (p *pool) shrink() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size == 1 {
		return false
	}
	p.size--
	return true
}

// put gives a session back. One that failed with err is closed, if it is still there.
func (p *pool) put(s p11.SessionHandle, err error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if err != nil || closed {
		// The number of a session that is gone may be that of a new one by now.
		if !isAny(err, sessionGone) {
			p.m.CloseSession(s)
		}
		s = 0
	}
	p.free <- s
}

// close closes the sessions that are free, and sees to it that put closes the others.
func (p *pool) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.lost)
	}
	p.mu.Unlock()
	for range cap(p.free) {
		select {
		case s := <-p.free:
			if s != 0 {
				p.m.CloseSession(s)
			}
			p.free <- 0
		default:
			return
		}
	}
}

// sessionGone are the return values after which a session does not exist any more.
var sessionGone = []uint{
	p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_DEVICE_REMOVED,
	p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_CRYPTOKI_NOT_INITIALIZED,
}

// passing are the others that may be different the next time, with a new session.
var passing = []uint{
	p11.CKR_SLOT_ID_INVALID, p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_HOST_MEMORY,
	p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_SESSION_COUNT, p11.CKR_OPERATION_ACTIVE,
	p11.CKR_OPERATION_NOT_INITIALIZED, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_TOKEN_NOT_RECOGNIZED,
	// After these the key is looked for again: it has another handle, or is gone.
	p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID,
}

// temporary reports whether it is worth to try again.
func temporary(err error) bool {
	return isAny(err, sessionGone) || isAny(err, passing) || errors.Is(err, errPoolClosed) || errors.Is(err, errAbsent)
}

func isAny(err error, codes []uint) bool {
	var code p11.Error
	if !errors.As(err, &code) {
		return false
	}
	for _, c := range codes {
		if uint(code) == c {
			return true
		}
	}
	return false
}
