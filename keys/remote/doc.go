// Package remote makes a crypto.Signer of a service that signs somewhere else: it
// gathers calls into batches, keeps as many requests in flight as the service takes,
// and asks again for what failed for the moment. It knows no service; keys/hashivault
// and keys/program do. Start with [NewSigner].
package remote
