// Package web is the status page of `mvsched serve --listen`, and what machines ask beside it.
//
//	database ──one statement──▶ feeder ──edition──▶ /  /events  /metrics  /readyz  /badge.svg  /api/…
//	         ◀──LISTEN, by serve─┘        (one, shared by all who look)
//
// However many people look, the database is asked by one feeder: a second passes between one look and the next, and it does
// not look at all while nobody else does. That a refresh has ended is told at once all the same, as far as the notification
// itself says it (a flash). What the feeder reads is an edition. Each form of an edition (the page, an event, the metrics) is rendered when
// somebody asks for it, once, and the bytes are shared; who opens the page need not wait for a new one. A reader waits for the next edition and then takes the newest: a
// slow one misses some, none queue up for it, and one that takes nothing for a while is dropped.
//
// Nothing can be changed here: GET and HEAD are all there is.
package web
