"""Drives the payment sandbox with whichever `stripe` is on the path; an assertion says what is wrong."""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from importlib import metadata

import stripe

URL, KEY, SECRET = (os.environ[f"SANDBOX_{name}"] for name in ("URL", "KEY", "SECRET"))
BACK = "https://shop.test/back"


def client(key=KEY, **options):
    made = stripe.StripeClient(key, base_addresses={"api": URL}, max_network_retries=0, **options)
    # Later ones keep what is of version 1 of the API apart.
    return getattr(made, "v1", made)


api = client()
# Named otherwise since 2026-09-30.endive, which is pinned by later ones.
NEW = stripe.api_version >= "2026-09-30"
CARD_ONLY = {"allowed_payment_method_types" if NEW else "payment_method_types": ["card"]}


def intent(card="pm_card_visa", **more):
    params = {"amount": 2500, "currency": "eur", "capture_method": "manual", "payment_method": card, **CARD_ONLY}
    return api.payment_intents.create(params={**params, **more})


def refused(kind, call, code=None, **about):
    """The error of that class that a call ends in."""
    try:
        call()
    except stripe.StripeError as error:
        assert type(error) is kind, f"{type(error).__name__} in place of {kind.__name__}: {error}"
        # Some classes lose it on the way.
        said = error.json_body["error"].get("code")
        assert said == code, (said, code)
        for name, value in about.items():
            assert getattr(error, name) == value, (name, getattr(error, name), value)
        return error
    raise AssertionError(f"no {kind.__name__}")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def at_the_bank(asked, outcome):
    """Does on the bank's page what a customer would; the address that it leads back to."""
    assert asked.status == "requires_action", asked.status
    page = asked.next_action.redirect_to_url.url
    form = urllib.parse.urlencode({"outcome": outcome}).encode()
    try:
        urllib.request.build_opener(NoRedirect).open(page, form, timeout=15)
    except urllib.error.HTTPError as answer:
        assert answer.code == 303, answer.code
        return urllib.parse.parse_qs(urllib.parse.urlparse(answer.headers["Location"]).query)
    raise AssertionError("the page leads nowhere")


def payments():
    made = intent(metadata={"order_id": "o1"})
    assert (made.status, made.metadata["order_id"], made.client_secret.startswith(made.id)) == ("requires_confirmation", "o1", True)
    held = api.payment_intents.confirm(made.id)
    assert (held.status, held.amount_capturable) == ("requires_capture", 2500)
    paid = api.payment_intents.capture(made.id)
    assert (paid.status, paid.amount_received) == ("succeeded", 2500)
    assert api.payment_intents.retrieve(made.id).status == "succeeded"

    part = api.payment_intents.confirm(intent().id)
    part = api.payment_intents.capture(part.id, params={"amount_to_capture": 1000})
    assert (part.status, part.amount_received, part.amount_capturable) == ("succeeded", 1000, 0)

    canceled = api.payment_intents.confirm(intent().id)
    canceled = api.payment_intents.cancel(canceled.id, params={"cancellation_reason": "abandoned"})
    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")

    first = api.refunds.create(params={"payment_intent": paid.id, "amount": 400, "reason": "duplicate"})
    rest = api.refunds.create(params={"payment_intent": paid.id})
    assert (first.status, rest.status, rest.amount) == ("succeeded", "succeeded", 2100)
    assert [refund.id for refund in api.refunds.list(params={"payment_intent": paid.id})] == [rest.id, first.id]
    again = lambda: api.refunds.create(params={"payment_intent": paid.id})
    refused(stripe.InvalidRequestError, again, "charge_already_refunded", http_status=400)
    more = lambda: api.refunds.create(params={"payment_intent": part.id, "amount": 1001})
    refused(stripe.InvalidRequestError, more, "amount_too_large", param="amount")

    full = api.payment_intents.retrieve(paid.id, params={"expand": ["latest_charge"]})
    assert (full.latest_charge.amount_refunded, full.latest_charge.paid) == (2500, True)
    card = full.latest_charge.payment_method_details.card
    assert (card.brand, card.last4) == ("visa", "4242")


def authentication():
    made = intent("pm_card_threeDSecure2Required")
    asked = api.payment_intents.confirm(made.id, params={"return_url": BACK})
    back = at_the_bank(asked, "complete")
    assert back == {
        "payment_intent": [made.id],
        "payment_intent_client_secret": [made.client_secret],
        "redirect_status": ["succeeded"],
    }, back
    assert api.payment_intents.retrieve(made.id).status == "requires_capture"

    made = intent("pm_card_authenticationRequired")
    back = at_the_bank(api.payment_intents.confirm(made.id, params={"return_url": BACK}), "fail")
    failed = api.payment_intents.retrieve(made.id)
    assert (back["redirect_status"], failed.status) == (["failed"], "requires_payment_method")
    assert failed.last_payment_error.code == "payment_intent_authentication_failure"
    again = api.payment_intents.confirm(made.id, params={"payment_method": "pm_card_visa"})
    assert again.status == "requires_capture"

    alone = lambda: intent("pm_card_authenticationRequired", confirm=True, off_session=True)
    refused(stripe.CardError, alone, "authentication_required", http_status=402)


def errors():
    declined = intent("pm_card_visa_chargeDeclinedInsufficientFunds")
    error = refused(stripe.CardError, lambda: api.payment_intents.confirm(declined.id), "card_declined", http_status=402)
    assert error.error.decline_code == "insufficient_funds"
    assert error.error.payment_intent.id == declined.id and error.request_id.startswith("req_")

    wrong = stripe.InvalidRequestError
    plain = {"amount": 2500, "currency": "eur", "payment_method": "pm_card_visa"}
    create = lambda **more: (lambda: api.payment_intents.create(params={**plain, **more}))
    refused(wrong, create(confirm=True), param="return_url", http_status=400)
    refused(wrong, create(amuont=1), "parameter_unknown", param="amuont")
    refused(wrong, create(amount=49), "amount_too_small", param="amount")
    refused(wrong, create(amount=10**12), "amount_too_large", param="amount")
    refused(wrong, create(currency="isk", amount=24901), param="amount")
    refused(wrong, create(currency="eur", payment_method="pm_card_nope"), "resource_missing", param="payment_method")
    refused(wrong, create(**{"payment_method_types" if NEW else "allowed_payment_method_types": ["card"]}),
            "parameter_unknown")
    refused(wrong, lambda: api.payment_intents.capture(declined.id), "payment_intent_unexpected_state")
    refused(wrong, lambda: api.payment_intents.retrieve("pi_none"), "resource_missing", http_status=404)
    refused(stripe.AuthenticationError, lambda: client("sk_test_other").payment_intents.list(), http_status=401)
    elsewhere = {"stripe_account": "acct_1"}
    other = lambda: api.payment_intents.list(options=elsewhere)
    refused(stripe.PermissionError, other, "account_invalid", http_status=403)

    key = {"idempotency_key": "k"}
    first = api.payment_intents.create(params=plain, options=key)
    same = api.payment_intents.create(params=plain, options=key)
    assert (same.id, same.last_response.headers["idempotent-replayed"]) == (first.id, "true")
    different = lambda: api.payment_intents.create(params={**plain, "amount": 2600}, options=key)
    refused(stripe.IdempotencyError, different, http_status=400)
    answered = first.last_response.headers["stripe-version"]
    assert answered == stripe.api_version, answered


def lists():
    made = [intent(metadata={"page": str(number)}).id for number in range(25)]
    listed = [found.id for found in api.payment_intents.list(params={"limit": 10}).auto_paging_iter()]
    assert listed[:25] == made[::-1] and len(listed) == len(set(listed)) > 25
    back = api.payment_intents.list(params={"limit": 10, "ending_before": made[0]})
    assert [found.id for found in back.auto_paging_iter()] == made[1:]


def until(what, find):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what}")


def disputes():
    paid = api.payment_intents.capture(api.payment_intents.confirm(intent("pm_card_createDispute").id).id)
    of = {"payment_intent": paid.id}
    dispute = until("dispute", lambda: api.disputes.list(params=of).data)[0]
    assert (dispute.status, dispute.amount) == ("needs_response", 2500)
    refused(stripe.InvalidRequestError, lambda: api.refunds.create(params=of), "charge_disputed")
    assert api.disputes.update(dispute.id, params={"evidence": {"uncategorized_text": "winning_evidence"}}).status == "won"
    closed = until("event", lambda: api.events.list(params={"type": "charge.dispute.closed"}).data)[0]
    assert api.events.retrieve(closed.id).data.object["id"] == dispute.id


def webhooks():
    wanted = {event.id for event in api.events.list(params={"limit": 100}).auto_paging_iter()}

    def delivered():
        with open(os.environ["SANDBOX_HOOKS"]) as file:
            lines = [json.loads(line) for line in file]
        events = [(stripe.Webhook.construct_event(line["body"], line["signature"], SECRET), line) for line in lines]
        return events if {event.id for event, _ in events} >= wanted else None

    events = until("webhooks", delivered)
    kinds = {event.type for event, _ in events}
    assert {"payment_intent.succeeded", "payment_intent.requires_action", "payment_intent.payment_failed",
            "payment_intent.canceled", "refund.created", "charge.refunded", "charge.dispute.created"} <= kinds, kinds
    succeeded = next(event for event, _ in events if event.type == "payment_intent.succeeded")
    assert isinstance(succeeded.data.object, stripe.PaymentIntent)
    line = events[0][1]
    for body, secret in [(line["body"] + " ", SECRET), (line["body"], "whsec_other")]:
        try:
            stripe.Webhook.construct_event(body, line["signature"], secret)
        except stripe.SignatureVerificationError:
            continue
        raise AssertionError("it takes what was not signed")


for part in (payments, authentication, errors, lists, disputes, webhooks):
    part()
print(f"stripe {metadata.version('stripe')}, {stripe.api_version}")
