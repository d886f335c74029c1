// Drives the payment sandbox with the `stripe` in the folder that is named; an assertion says what is wrong.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const exported = require(process.argv[2]);
const Stripe = exported.Stripe ?? exported.default ?? exported;
const { SANDBOX_URL, SANDBOX_KEY, SANDBOX_SECRET, SANDBOX_HOOKS } = process.env;
const BACK = "https://shop.test/back";

const { hostname: host, port } = new URL(SANDBOX_URL);
const client = (key) => new Stripe(key, { host, port, protocol: "http", maxNetworkRetries: 0, telemetry: false });
const api = client(SANDBOX_KEY);
const version = api.getApiField("version");
// Named otherwise since 2026-09-30.endive, which is pinned by later ones.
const [named, other] = ["payment_method_types", "allowed_payment_method_types"];
const isNew = version >= "2026-09-30";
const cardOnly = { [isNew ? other : named]: ["card"] };

const intent = (card = "pm_card_visa", more = {}) =>
  api.paymentIntents.create({
    amount: 2500, currency: "eur", capture_method: "manual", payment_method: card, ...cardOnly, ...more,
  });

/** The error of that class that a call ends in. */
async function refused(kind, call, about) {
  const error = await call().then(() => assert.fail(`no ${kind}`), (error) => error);
  assert.equal(error.type, kind, error.message);
  assert.ok(error instanceof Stripe.errors[kind], error.message);
  for (const [name, value] of Object.entries(about)) assert.equal(error[name], value, `${name} of ${error.message}`);
  return error;
}

/** Does on the bank's page what a customer would; the parameters that it leads back with. */
async function atTheBank(asked, outcome) {
  assert.equal(asked.status, "requires_action");
  const body = new URLSearchParams({ outcome });
  const answer = await fetch(asked.next_action.redirect_to_url.url, { method: "POST", body, redirect: "manual" });
  assert.equal(answer.status, 303);
  return new URL(answer.headers.get("location")).searchParams;
}

async function payments() {
  const made = await intent("pm_card_visa", { metadata: { order_id: "o1" } });
  assert.deepEqual([made.status, made.metadata.order_id], ["requires_confirmation", "o1"]);
  const held = await api.paymentIntents.confirm(made.id);
  assert.deepEqual([held.status, held.amount_capturable], ["requires_capture", 2500]);
  const paid = await api.paymentIntents.capture(made.id);
  assert.deepEqual([paid.status, paid.amount_received], ["succeeded", 2500]);

  let part = await api.paymentIntents.confirm((await intent()).id);
  part = await api.paymentIntents.capture(part.id, { amount_to_capture: 1000 });
  assert.deepEqual([part.status, part.amount_received, part.amount_capturable], ["succeeded", 1000, 0]);

  let canceled = await api.paymentIntents.confirm((await intent()).id);
  canceled = await api.paymentIntents.cancel(canceled.id, { cancellation_reason: "abandoned" });
  assert.deepEqual([canceled.status, canceled.cancellation_reason], ["canceled", "abandoned"]);

  const first = await api.refunds.create({ payment_intent: paid.id, amount: 400 });
  const rest = await api.refunds.create({ payment_intent: paid.id });
  assert.deepEqual([first.status, rest.amount], ["succeeded", 2100]);
  const listed = await api.refunds.list({ payment_intent: paid.id });
  assert.deepEqual(listed.data.map((refund) => refund.id), [rest.id, first.id]);
  const wrong = "StripeInvalidRequestError";
  await refused(wrong, () => api.refunds.create({ payment_intent: paid.id }), { code: "charge_already_refunded" });
  const more = () => api.refunds.create({ payment_intent: part.id, amount: 1001 });
  await refused(wrong, more, { code: "amount_too_large", param: "amount" });
  const full = await api.paymentIntents.retrieve(paid.id, { expand: ["latest_charge"] });
  assert.deepEqual([full.latest_charge.amount_refunded, full.latest_charge.paid], [2500, true]);
}

async function authentication() {
  let made = await intent("pm_card_threeDSecure2Required");
  let back = await atTheBank(await api.paymentIntents.confirm(made.id, { return_url: BACK }), "complete");
  assert.equal(back.get("payment_intent_client_secret"), made.client_secret);
  assert.equal(back.get("redirect_status"), "succeeded");
  assert.equal((await api.paymentIntents.retrieve(made.id)).status, "requires_capture");

  made = await intent("pm_card_authenticationRequired");
  back = await atTheBank(await api.paymentIntents.confirm(made.id, { return_url: BACK }), "fail");
  const failed = await api.paymentIntents.retrieve(made.id);
  assert.deepEqual([back.get("redirect_status"), failed.status], ["failed", "requires_payment_method"]);
  assert.equal(failed.last_payment_error.code, "payment_intent_authentication_failure");
  const alone = () => intent("pm_card_authenticationRequired", { confirm: true, off_session: true });
  await refused("StripeCardError", alone, { code: "authentication_required", statusCode: 402 });
}

async function errors() {
  const declined = await intent("pm_card_visa_chargeDeclinedInsufficientFunds");
  const error = await refused("StripeCardError", () => api.paymentIntents.confirm(declined.id), {
    code: "card_declined", decline_code: "insufficient_funds", statusCode: 402,
  });
  assert.equal(error.payment_intent.id, declined.id);
  assert.match(error.requestId, /^req_/);

  const wrong = "StripeInvalidRequestError";
  const plain = { amount: 2500, currency: "eur", payment_method: "pm_card_visa" };
  const create = (more, options) => () => api.paymentIntents.create({ ...plain, ...more }, options);
  await refused(wrong, create({ confirm: true }), { param: "return_url", statusCode: 400 });
  await refused(wrong, create({ amuont: 1 }), { code: "parameter_unknown", param: "amuont" });
  await refused(wrong, create({ amount: 49 }), { code: "amount_too_small", param: "amount" });
  await refused(wrong, create({ amount: 1e12 }), { code: "amount_too_large", param: "amount" });
  await refused(wrong, create({ currency: "kwd", amount: 5124 }), { param: "amount" });
  await refused(wrong, create({ payment_method: "pm_card_nope" }), { code: "resource_missing" });
  await refused(wrong, create({ [isNew ? named : other]: ["card"] }), { code: "parameter_unknown" });
  await refused(wrong, () => api.paymentIntents.capture(declined.id), { code: "payment_intent_unexpected_state" });
  await refused(wrong, () => api.paymentIntents.retrieve("pi_none"), { code: "resource_missing", statusCode: 404 });
  const keyless = () => client("sk_test_other").paymentIntents.list();
  await refused("StripeAuthenticationError", keyless, { statusCode: 401 });
  const elsewhere = () => api.paymentIntents.list({}, { stripeAccount: "acct_1" });
  await refused("StripePermissionError", elsewhere, { code: "account_invalid", statusCode: 403 });

  const key = { idempotencyKey: "k" };
  const first = await create({}, key)();
  const same = await create({}, key)();
  assert.deepEqual([same.id, same.lastResponse.headers["idempotent-replayed"]], [first.id, "true"]);
  await refused("StripeIdempotencyError", create({ amount: 2600 }, key), { statusCode: 400 });
  assert.equal(first.lastResponse.apiVersion, version);
}

async function lists() {
  const made = [];
  for (let page = 0; page < 25; page++) made.unshift((await intent()).id);
  const listed = [];
  for await (const found of api.paymentIntents.list({ limit: 10 })) listed.push(found.id);
  assert.deepEqual(listed.slice(0, 25), made);
  assert.ok(listed.length > 25 && new Set(listed).size === listed.length);
}

async function until(what, find) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    const found = await find();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`no ${what}`);
}

async function disputes() {
  const made = await api.paymentIntents.confirm((await intent("pm_card_createDispute")).id);
  const of = { payment_intent: (await api.paymentIntents.capture(made.id)).id };
  const dispute = await until("dispute", async () => (await api.disputes.list(of)).data[0]);
  assert.equal(dispute.status, "needs_response");
  const refund = () => api.refunds.create(of);
  await refused("StripeInvalidRequestError", refund, { code: "charge_disputed" });
  assert.equal((await api.disputes.close(dispute.id)).status, "lost");
  const list = () => api.events.list({ type: "charge.dispute.closed" });
  const closed = await until("event", async () => (await list()).data[0]);
  assert.equal((await api.events.retrieve(closed.id)).data.object.id, dispute.id);
}

async function webhooks() {
  const wanted = [];
  for await (const event of api.events.list({ limit: 100 })) wanted.push(event.id);
  const events = await until("webhooks", () => {
    const lines = readFileSync(SANDBOX_HOOKS, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));
    const events = lines.map(({ body, signature }) => api.webhooks.constructEvent(body, signature, SANDBOX_SECRET));
    const ids = new Set(events.map((event) => event.id));
    return wanted.every((id) => ids.has(id)) && events.map((event, at) => ({ event, ...lines[at] }));
  });
  const kinds = new Set(events.map(({ event }) => event.type));
  for (const kind of ["payment_intent.succeeded", "payment_intent.requires_action", "payment_intent.payment_failed",
    "payment_intent.canceled", "refund.created", "charge.refunded", "charge.dispute.created"]) {
    assert.ok(kinds.has(kind), kind);
  }
  const { body, signature } = events[0];
  for (const [text, secret] of [[`${body} `, SANDBOX_SECRET], [body, "whsec_other"]]) {
    assert.throws(() => api.webhooks.constructEvent(text, signature, secret), { type: "StripeSignatureVerificationError" });
  }
}

for (const part of [payments, authentication, errors, lists, disputes, webhooks]) await part();
console.log(`stripe ${Stripe.PACKAGE_VERSION}, ${version}`);
