# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""What tickets are about: intents, the names labels give them, and topics with their wordings.

A topic is a gist (the words of the summary) and sentences that say it. Held-out sentences use
words that training uses too, in sentences that training never has.
"""

from __future__ import annotations

from recipes.seedling.phrases import Phrases

# Names that fit every topic of an intent.
LABELS: dict[str, tuple[str, ...]] = {
    "billing": ("billing", "billing problem", "payment", "billing and payments", "billing question", "invoices and payments"),
    "shipping": ("shipping", "delivery", "shipping problem", "delivery issue", "logistics", "delivery question"),
    "technical": ("technical", "technical support", "technical problem", "software problem", "technical issue", "software"),
    "account": ("account", "account change", "profile", "account management", "account data"),
    "refund": ("refund", "returns and refunds", "return", "refund or return", "returns"),
    "cancellation": ("cancellation", "cancel", "termination", "cancellation request"),
    "sales": ("sales", "pricing", "sales inquiry", "sales question", "pre-sales"),
    "feedback": ("feedback", "customer feedback", "opinion"),
    "security": ("security", "security incident", "security issue", "security problem"),
    "access": ("access", "login", "login problem", "sign-in", "access problem"),
    "damage": ("damaged goods", "damage", "defect", "faulty product", "product defect", "broken item"),
    "appointment": ("appointment", "scheduling", "appointment request", "booking", "meeting"),
}  # fmt: skip
# Names that fit some topics only.
TOPIC_LABELS: dict[str, tuple[str, ...]] = {
    "reports a double charge": ("double charge", "charges", "payment issue"),
    "reports a wrong invoice amount": ("invoice question", "charges", "wrong invoice"),
    "asks for a copy of an invoice": ("invoice question", "invoice copy"),
    "asks about payment methods": ("payment issue", "payment method"),
    "reports a late delivery": ("late delivery", "missing parcel"),
    "asks where the parcel is": ("tracking", "parcel tracking"),
    "asks to change the delivery address": ("address change",),
    "reports a wrong delivery": ("wrong item", "wrong delivery"),
    "reports a crash": ("bug", "crash"),
    "reports an error message": ("bug", "error"),
    "reports a slow system": ("performance",),
    "asks how to set up the software": ("installation", "setup"),
    "asks to delete the account": ("account deletion", "delete account"),
    "asks to add a user": ("new user",),
    "asks for a refund": ("refund request", "money back"),
    "asks to return an item": ("return request",),
    "asks for an exchange": ("exchange",),
    "wants to cancel a subscription": ("cancel subscription",),
    "wants to cancel an order": ("cancel order", "order cancellation"),
    "asks for a quote": ("quote request", "quote"),
    "asks for prices": ("price inquiry", "prices"),
    "praises the service": ("praise", "compliment"),
    "makes a suggestion": ("suggestion", "idea"),
    "complains about the service": ("complaint",),
    "reports a suspicious message": ("fraud", "phishing", "suspicious activity"),
    "reports a hacked account": ("fraud", "suspicious activity", "hacked account"),
    "reports a data leak": ("data leak",),
    "forgot the password": ("password", "password reset"),
    "asks for access rights": ("permissions", "access rights"),
    "asks about the warranty": ("warranty",),
    "wants to move an appointment": ("rescheduling",),
}  # fmt: skip
# A ticket of any intent may sound like one of these: they are never offered beside another truth.
VAGUE = ("complaint", "address change", "new user", "charges")

# What remains when no name of the set fits.
OTHER = ("other", "none", "something else", "other request")

TOPICS: dict[str, tuple[tuple[str, Phrases], ...]] = {
    "billing": (
        ("reports a double charge", Phrases(
            ("[I was|We were|My card was|Our account was] charged [twice|two times|double][| this month| last week| again].",
             "You [charged|billed|debited] [me|us|my card] [twice|two times|double][| for the same thing].",
             "The same [amount|payment|charge] [was taken|appears|shows up|was booked] [twice|two times] on [my|our] [card|statement|bank account].",
             "There [are|were] two [charges|payments|debits] on my [card|bank statement] [for one order|instead of one].",
             "I [see|found|noticed] a [double|second|duplicate] [charge|payment|debit][| on my card| on the statement]."),
            ("Why did the payment go off my card two times?",
             "On the bank statement the same sum has been debited twice.",
             "It seems that I paid double because of a duplicate booking."))),
        ("reports a wrong invoice amount", Phrases(
            ("The [invoice|bill] [is wrong|is not correct|has a wrong amount|is too high|shows the wrong sum].",
             "[The amount|The total|The sum] on [the|my|our|your] [invoice|bill] [is too high|is wrong|does not match the offer|is not what we agreed].",
             "[You|Your company] [billed|charged|invoiced] [me|us] [too much|more than agreed|the wrong amount|a wrong price].",
             "[I think|We think|It seems] [the|your|our] [invoice|bill] [has a mistake|contains an error|was calculated wrongly].",
             "The [tax|VAT|discount] on the [invoice|bill] [is wrong|is missing|was not applied]."),
            ("I was asked to pay more than the agreed price on the bill.",
             "Your accounting made an error: the sum we were invoiced does not match.",
             "The discount is missing on my invoice, so the total is too high."))),
        ("asks for a copy of an invoice", Phrases(
            ("[Could|Can] you [please |][send|mail|give] [me|us] [a copy of the|the|our last|another copy of the] [invoice|bill|receipt]?",
             "[I|We] [need|would like|do not have|want] [a copy of the|the|our] [invoice|receipt|bill][| for our books| for the tax office].",
             "[I|We] [never got|have not received|cannot find|lost] [the|our|my] [invoice|receipt|bill].",
             "Please [send|mail] [the|an] [invoice|receipt|bill] [again|once more|as PDF]."),
            ("My accountant wants the receipt; could you mail it once more?",
             "We are still missing an invoice for the books, please send a copy."))),
        ("asks about payment methods", Phrases(
            ("[Can|May|Could] [I|we] pay [by|with] [card|bank transfer|cheque|direct debit][| instead]?",
             "[I|We] [want|would like|need] to [change|update] [the|our|my] [payment method|credit card|bank details for payments].",
             "My [payment|card payment|bank transfer] [failed|was declined|did not go through|was rejected].",
             "Which [payment methods|ways to pay|cards] do you [accept|offer|take]?"),
            ("I would rather pay with another credit card from now on.",
             "The card was declined when I tried to make the payment."))),
    ),
    "shipping": (
        ("reports a late delivery", Phrases(
            ("[My|Our|The] [parcel|package|order|delivery|shipment] [is late|has not arrived|still has not come|never arrived|is overdue|did not arrive][| yet].",
             "[I am|We are] still waiting for [my|our|the] [parcel|package|order|delivery|shipment].",
             "[It|The parcel|The package|The delivery] [should have|was supposed to have] [arrived|come|been here] [last week|days ago|on Monday|yesterday].",
             "[Two|Three|Four] [days|weeks] [ago I ordered|have passed] and [nothing has come|nothing has arrived|there is no parcel].",
             "The [courier|driver|carrier|postman] [never came|did not show up|did not bring the parcel]."),
            ("For three weeks we have been waiting and no package has come.",
             "Nothing was delivered so far, although it should be here since Monday.",
             "The shipment is overdue by days."))),
        ("asks where the parcel is", Phrases(
            ("Where is [my|our|the] [parcel|package|order|shipment|delivery][| now| right now]?",
             "[Can|Could] you [tell me|say|check] where [my|our|the] [parcel|package|order|shipment] is?",
             "The [tracking|tracking page|tracking number|tracking link] [does not work|shows nothing|has not changed for days|is not updated].",
             "[I|We] [need|would like|want] [the|a] tracking [number|link|code][| please].",
             "When will [my|our|the] [parcel|package|order|shipment] [arrive|come|be delivered]?"),
            ("I cannot follow the parcel because the tracking code shows nothing.",
             "Please check on which day the package will be delivered."))),
        ("asks to change the delivery address", Phrases(
            ("[Please|Could you please] [send|ship|deliver] [it|the parcel|the order|the package] to [another|a different|a new|our other] address.",
             "[I|We] [entered|gave|typed] [the wrong|an old] [delivery address|shipping address].",
             "[Can|Could] you change the [delivery|shipping] address [of the order|of my parcel|before it ships]?",
             "The [delivery|shipping] address [is wrong|has a mistake|must be changed]."),
            ("The parcel should go to a different street, I gave an old delivery address.",
             "Is it possible to have the package shipped to another address?"))),
        ("reports a wrong delivery", Phrases(
            ("[I|We] [got|received|unpacked] the wrong [item|article|product|parcel|size|colour].",
             "[The parcel|The package|The delivery|The box] [contains|had|contained] the wrong [item|article|product|things].",
             "[One|An] [item|article|part] [is|was] missing [from|in] [the|my|our] [parcel|package|box|delivery].",
             "[You|They] [sent|delivered|shipped] [the wrong|another|a different] [item|product|article|colour]."),
            ("In the box there was another product than the one we ordered.",
             "The delivery is not complete, one article is missing."))),
    ),
    "technical": (
        ("reports a crash", Phrases(
            ("[The|Your] [app|program|software|website|tool] [crashes|freezes|hangs|stops|closes itself] [every time|when I open it|at the start|after the update|all the time].",
             "[Since|After] the [last|new|latest] [update|version] [the app|the program|the software|everything] [crashes|freezes|hangs|stops].",
             "[It|The app|The program|The software] [keeps crashing|keeps freezing|crashed again|does not start any more].",
             "[When|Every time|As soon as] I [click|press|open] [save|print|the report|the menu] the [app|program|page] [crashes|freezes|hangs]."),
            ("After I open a report the whole tool freezes.",
             "The newest version of the program stops and closes at every start."))),
        ("reports an error message", Phrases(
            ("[I|We] [get|see|always get|keep getting] [an error message|an error|error code 500|error 404|a strange error][| when saving| on the page].",
             "[The|Your] [page|website|app|software] [shows|displays|gives] [an error|an error message|error 502|only an error].",
             "There is [a bug|an error|a software error] [in|on] [the|your] [app|website|program|export|report].",
             "The [export|import|upload|download|search|sync|report] [fails|does not work|is broken|gives an error|stopped working]."),
            ("Each time I upload a file your website gives error code 500.",
             "We found a bug: the search does not work in the app."))),
        ("reports a slow system", Phrases(
            ("[The|Your] [app|website|server|system|program] is [very|extremely|really|so] slow[| today| since the update].",
             "[Loading|Opening|Saving] [a page|a file|the report] takes [minutes|forever|ages|very long].",
             "[Everything|The whole system|The dashboard] [loads|runs|responds] [slowly|very slowly]."),
            ("It takes ages until the server responds.", "The dashboard runs extremely slowly when loading."))),
        ("asks how to set up the software", Phrases(
            ("How [do|can] [I|we] [install|set up|configure|update] [the|your] [app|software|program|printer driver|device]?",
             "[I|We] [cannot|do not know how to|need help to] [install|set up|configure|connect] [the|your] [app|software|program|device].",
             "The [installation|setup|configuration] [does not work|fails|is not clear|stops half way].",
             "Is there a [manual|guide] [for|on] the [setup|installation|configuration]?"),
            ("I need help with the installation of your software.", "Which steps do we take to configure the program?"))),
    ),
    "account": (
        ("asks to change the email address", Phrases(
            ("[Please change|Could you change|I want to change|We need to update] the email address [of|in|for] [my|our] [account|profile].",
             "My [email|email address|mail address] has changed[| and the account should know it|, please update my profile].",
             "[I have|We have] a new email address [for the account|, please update it]."),
            ("Kindly update our profile with the new mail address.", "A new email address should be stored in my account."))),
        ("asks to change the name or address", Phrases(
            ("[I|We] [moved|have moved|changed our name|got married], please [update|change|correct] [my|our] [account|profile|customer data].",
             "[My|Our] [name|address|phone number|company name] in the [account|profile] is [wrong|old|not correct].",
             "[Please|Could you] [update|correct|change] [my|our] [name|phone number|personal data|company name][| in the account| in my profile]."),
            ("In your customer data our company name is not correct.", "As I got married, the name on my profile must be changed."))),
        ("asks to delete the account", Phrases(
            ("[Please|I want you to|Could you] [delete|remove|erase] my [account|profile|user account|personal data].",
             "[How can I|I want to] [delete|remove|erase] my [account|profile|data]?",
             "[I|We] [do not need|no longer use] [the|our] account, please [delete|remove] it."),
            ("All my data and the profile should be erased.", "I wish that you remove our user account."))),
        ("asks to add a user", Phrases(
            ("[Please|Could you] add [a|another|a new] [user|colleague|team member] to [our|my] account.",
             "[We|I] [need|want|would like] [one more|a second|another] user [on|in|for] [our|the] account.",
             "How [can|do] [I|we] [add|create] [a new user|another team member|a colleague] in [our|the] account?"),
            ("A new colleague must be added to the account of our team.", "Can we have one more user in our profile?"))),
    ),
    "refund": (
        ("asks for a refund", Phrases(
            ("[I|We] [want|would like|demand|ask for|request] [my|our] money back[|, please].",
             "[Please|Could you please|Kindly] [refund|pay back|return] [me|us|my money|the full amount|the price].",
             "[I|We] [would like|ask for|request|expect|want] a [full |]refund.",
             "When [will|do] [I|we] get [my|our] [money back|refund]?",
             "[The|My] refund [has not arrived|is still missing|was promised but never came]."),
            ("I expect that the full price is refunded.", "My money should be paid back, please.",
             "You promised a refund, when does it come?"))),
        ("asks to return an item", Phrases(
            ("[I|We] [want|would like|wish|need] to [return|send back|give back] [it|the item|the product|the goods|this article].",
             "How [can|do] [I|we] [return|send back] [it|an item|the product|the goods]?",
             "[Please|Could you] send [me|us] a return [label|form|slip].",
             "[It|The item|The product] [does not fit|is not what I wanted|is too small|is too big] [and I want to|, so I would like to] [return it|send it back]."),
            ("Do you have a return slip so that the goods can be sent back?", "We are going to give the product back, how does a return work?"))),
        ("asks for an exchange", Phrases(
            ("[Can|Could|May] [I|we] [exchange|swap] [it|the item|the product] [for|against] [another|a bigger|a smaller|a different] [one|size|colour]?",
             "[I|We] [want|would like] to [exchange|swap] [it|the item|the article] for [another size|a different colour|a bigger one|a smaller one].",
             "[Please|Kindly] [exchange|swap] the [item|article|product]."),
            ("Would you swap the article for a bigger one?", "An exchange against a different size would be good."))),
    ),
    "cancellation": (
        ("wants to cancel a subscription", Phrases(
            ("[I|We] [want|would like|wish|need] to [cancel|end|terminate|stop] [my|our] [subscription|contract|membership|plan].",
             "[Please|Kindly] [cancel|end|terminate|stop] [my|our] [subscription|contract|membership|plan][| at once| at the end of the month| as soon as possible].",
             "[I am|We are] [cancelling|ending|terminating] [my|our] [subscription|contract|membership|plan].",
             "How [can|do] [I|we] [cancel|end|terminate] [my|our|the] [subscription|contract|membership]?",
             "[Do not|Please do not] renew [my|our] [subscription|contract|membership|plan][| any more]."),
            ("The membership should not be renewed, I am ending it.", "With this mail we terminate the plan at the end of the month.",
             "Please stop the contract as soon as possible."))),
        ("wants to cancel an order", Phrases(
            ("[I|We] [want|would like|need|have] to cancel [my|our|the|this] order.",
             "[Please|Could you please|Kindly] cancel [my|our|the|this] order[| before it ships| at once].",
             "[I|We] ordered [by mistake|the wrong thing], please cancel [it|the order].",
             "[I|We] [do not need|no longer need|do not want] [it|the order|the goods] any more, [please cancel|so please cancel it].",
             "Is it [still |]possible to cancel [my|our|the] order?"),
            ("Our order was a mistake and has to be cancelled.", "Can the order be cancelled before you ship it?"))),
    ),
    "sales": (
        ("asks for a quote", Phrases(
            ("[Please|Could you] [send|make|give] [me|us] [a quote|an offer|a price quote] for [50|100|200|500|20] [units|pieces|licences].",
             "[I|We] [need|would like|want|are looking for] [a quote|an offer|your best price][| for our company| for a larger order].",
             "[What would|How much would] [100|50|20|300] [units|pieces|licences] cost?",
             "[We|I] plan to buy [20|50|100|300] [units|pieces|licences] and need [a quote|an offer|your best price]."),
            ("What is your best offer for 80 pieces?", "Our company is looking for a price quote on 40 licences."))),
        ("asks for prices", Phrases(
            ("[How much|What] [does it cost|is the price|do you charge][| per month| per user| for the large plan]?",
             "[Can|Could] you [send|mail] [me|us] [your|a] price list?",
             "[Do you offer|Is there|Do you have] [a discount|special prices|lower prices] for [schools|students|large orders|new customers]?",
             "[I am|We are] interested in [your|the] [prices|price list|business plan|premium plan]."),
            ("Are there special prices for students?", "A price list for the premium plan would help us."))),
        ("asks about a product before buying", Phrases(
            ("[Before|Before I buy|Before we order,] [I have|we have] [a question|some questions] [about|on] [the|your] [product|model|plan].",
             "[I am|We are] thinking about buying [it|your product|one], [does it|can it] [fit|work with] [our|my] [needs|old model]?",
             "[Is it|Is the product|Is this model] [in stock|available][| in blue| in other colours| in larger sizes]?",
             "[I|We] would like [a demo|a trial|a test version|more information] before [buying|we buy|ordering]."),
            ("We have some questions before ordering one of your models.", "Is a trial available before I buy?"))),
    ),
    "feedback": (
        ("praises the service", Phrases(
            ("[I|We] [just |][want|wanted|would like] to say [thank you|thanks|how happy we are|how good it is].",
             "[Your|The] [team|service|support|staff] [is|was] [great|excellent|fantastic|very friendly|wonderful].",
             "[I am|We are] [very happy|really pleased|delighted|very satisfied] with [your|the] [product|service|work|app].",
             "[Great|Excellent|Fantastic|Wonderful] [job|work|service|product][|, keep it up|, well done]!",
             "[I|We] love [your|the] [product|app|service|shop]."),
            ("You have such a friendly and excellent staff, well done!", "We are delighted and satisfied, keep up the great work."))),
        ("makes a suggestion", Phrases(
            ("[I have|Here is|We have] [a suggestion|an idea|a small idea][| for your app| for your shop| for the next version].",
             "[It would be|It might be] [nice|great|helpful] if [the app|you|your shop] [had|offered|supported] [a dark mode|more colours|a search|gift cards].",
             "[I|We] [suggest|propose|recommend] [adding|offering|that you add] [a dark mode|more sizes|a wish list|gift cards].",
             "[Have you thought|Did you ever think] about [adding|offering] [a dark mode|gift cards|a wish list]?"),
            ("An idea for the next version: adding more colours.", "I would recommend that your shop offered a wish list."))),
        ("complains about the service", Phrases(
            ("[Your|The] [service|support|staff|hotline] [is|was] [terrible|very bad|rude|unfriendly|a disappointment].",
             "[I am|We are] [very disappointed|really unhappy|not satisfied] with [your|the] [service|support|staff].",
             "[Nobody|No one] [answers|ever calls back|listens] [at your hotline|in your support team|when I call].",
             "[I|We] waited [one hour|forty minutes|for ages] [on the phone|at the hotline|in your shop][| and nobody helped]."),
            ("Such an unfriendly hotline is a real disappointment.", "Nobody in the support team listens, we are unhappy."))),
    ),
    "security": (
        ("reports a suspicious message", Phrases(
            ("[I|We] [got|received] a [suspicious|strange|fake|phishing] [email|message|call|mail] [in your name|that claims to be from you|with your logo].",
             "[Someone|Somebody] [sends|is sending] [fake|phishing] [mails|messages|emails] in your name.",
             "[Is|Was] this [email|message|mail] really from you, or is it [phishing|a scam|fraud|fake]?",
             "[I|We] [clicked|opened] a [phishing|suspicious|dangerous] [link|file]."),
            ("With your logo somebody writes fake mails, it looks like a scam.", "Is the strange call that claims to come from you a fraud?"))),
        ("reports a hacked account", Phrases(
            ("[I think|I fear|We believe] [my|our] account [was|has been] [hacked|stolen|taken over].",
             "[Someone|Somebody|A stranger] [logged into|used|got into|broke into] [my|our] account.",
             "There [was|is] a [login|sign-in] from [another country|an unknown device|a strange place] [in|on] [my|our] account.",
             "[Orders|Purchases] [were made|appeared] in my account [that I did not make|by a stranger]."),
            ("A stranger made purchases, the account must have been hacked.", "We believe that somebody from another country broke into our account."))),
        ("reports a data leak", Phrases(
            ("[I|We] [found|discovered|noticed] [a security hole|a vulnerability|a data leak] [in|on] your [website|app|system].",
             "[I can|Everyone can|Anyone can] see [the data|the orders|the addresses] of other [customers|users] on your [website|app].",
             "[My|Our|Customer] [data|passwords] [were leaked|has been leaked|can be seen by anyone|appeared on the internet].",),
            ("There is a vulnerability: anyone can see the data of other users.", "Our passwords were leaked on the internet."))),
    ),
    "access": (
        ("cannot log in", Phrases(
            ("[I|We] [cannot|can not|can't|am not able to] [log in|sign in|login|get in][| any more| since yesterday| to the portal].",
             "[The|Your] [login|sign-in] [does not work|fails|is not possible|does not let me in].",
             "[My|Our] [login|user name] [is not accepted|does not work|is not known].",
             "[I am|We are] locked out of [the portal|the system|my account|the website]."),
            ("Since yesterday the portal does not let me in.", "It is not possible to sign in with our user name."))),
        ("forgot the password", Phrases(
            ("[I|We] [forgot|lost|do not remember] [my|our|the] password.",
             "[Please|Could you] reset [my|our] password.",
             "[The|Your] [password reset|reset mail|reset link] [does not arrive|never came|does not work|has expired].",
             "[I|We] need a new password[| for the portal| please]."),
            ("Could I get a new password, the old one is lost.", "No reset mail came after I forgot my password."))),
        ("asks for access rights", Phrases(
            ("[I|We] [need|would like|have no|do not have] access to [the|our] [shared folder|reports|admin area|portal|database].",
             "[Please|Could you] give [me|us|my colleague] [access|permission|the rights] to [the|our] [shared folder|reports|admin area|portal].",
             "[My|Our] [permission|access|rights] [is missing|are missing|was removed|has expired]."),
            ("My colleague is missing the permission to open the shared folder.", "We do not have the rights for the admin area."))),
        ("reports a problem with the login code", Phrases(
            ("The [login code|verification code|two-factor code|SMS code] [does not arrive|never comes|is not accepted|has expired].",
             "[I|We] [do not get|never receive|did not get] the [login code|verification code|SMS code|two-factor code].",
             "[I|We] [have|got] a new phone and [cannot use|lost] the [two-factor login|login code app]."),
            ("No verification code comes to my new phone.", "Your SMS code was not accepted at the login."))),
    ),
    "damage": (
        ("reports a damaged item", Phrases(
            ("[It|The item|The product|The article] [arrived|came|was] [broken|damaged|scratched|cracked|in pieces].",
             "[The|One] [corner|side|cover|glass|leg] [is|was] [broken|scratched|cracked|damaged].",
             "[I|We] [unpacked|opened] [it|the box] and [it was broken|found it damaged|saw scratches|the glass was cracked].",
             "There [is|are] [a crack|scratches|a dent|a hole] [in|on] [it|the cover|the product]."),
            ("When we unpacked the article there were scratches and a dent.", "One leg came cracked and the cover is in pieces."))),
        ("reports a defective product", Phrases(
            ("[It|The product|The device|The item] [is defective|is faulty|stopped working|does not work|broke] after [two days|one week|a month|an hour].",
             "[The device|The product|It] [does not turn on|does not charge|makes a strange noise|gets too hot|loses water].",
             "[The|Its] [motor|battery|button|screen|switch] [is dead|is defective|does not work|broke|is faulty].",
             "[I|We] [have|got] a [faulty|defective] [product|device|item]."),
            ("Within a week the battery was dead and the device faulty.", "A strange noise comes from the motor and it gets hot."))),
        ("asks about the warranty", Phrases(
            ("[Is|Does] [it|the device|the product] still [under warranty|have a warranty]?",
             "[Can|Could] you [repair|replace] [it|the device|the broken part] under [the |]warranty?",
             "[I|We] [want|would like|need] a [repair|replacement] under [the |]warranty.",
             "How long is the warranty [on|for] [it|the device|this product]?",),
            ("The warranty should cover the repair of the broken part.", "Would you replace the device, it has a warranty?"))),
    ),
    "appointment": (
        ("asks for an appointment", Phrases(
            ("[I|We] [would like|want|need] [to make |to book |to get |][an appointment|a meeting|a visit][| next week| with your team| on Monday].",
             "[Can|Could] [I|we] [come by|meet|have a meeting|get an appointment] [next week|on Tuesday|tomorrow|this month]?",
             "When [is|do you have] [a free|the next] [appointment|slot|date for a meeting][| free]?",
             "[Please|Could you] [book|reserve] [an appointment|a slot|a meeting] for [me|us]."),
            ("Is there a free slot to meet your team this month?", "We need a date for a visit, can you reserve one tomorrow?"))),
        ("wants to move an appointment", Phrases(
            ("[I|We] [have|need|want|would like] to [move|reschedule|postpone] [my|our|the] [appointment|meeting|visit].",
             "[Can|Could] [I|we|you] [move|reschedule|postpone] [the|our|my] [appointment|meeting|visit] [to Friday|to next week|by two days]?",
             "[I|We] cannot come to [the|our|my] [appointment|meeting][|, is another day possible|, please find a new date]."),
            ("Another day would be better for our visit, please reschedule.", "The meeting must be postponed by a week."))),
    ),
}  # fmt: skip
