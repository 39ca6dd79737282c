/* story_rules.c - the words and the grammar of the demo's stories; stories.c explains the notation.
 *
 * A story is a cast, an opening, a plot and a close. Every plot binds a cause and lets the rest follow from
 * it: where something fell decides how it is saved, what is feared decides what helps, numbers are counted
 * and taken away. That gives a small model something to learn beyond spelling: who is "she", what was lost,
 * how many are left. The scenes between are loosely chosen words, so that the text keeps an uncertainty no
 * model removes. */
#include "jobs/demo/demo.h"

/* clang-format off */
const p4_story_rule p4_story_rules[] = {
    {"story", "[cast][opening] [scenes]\n[plot]\n[scenes] [close]"},

    /* ---- Who ---- */
    {"girl", "Lily|Mia|Anna|Rosa|Ella|Nora|Ruby|Zoe|Clara|Ivy|Hana|Tess|Molly|Daisy|Pia|June|Vera|Lucy|Alma|"
             "Edith|Greta|Holly|Wendy|Sofia"},
    {"boy", "Tom|Ben|Max|Sam|Leo|Finn|Jack|Oscar|Hugo|Theo|Omar|Nico|Pete|Felix|Ravi|Gus|Adam|Carl|Emil|Ian|"
            "Karl|Louis|Noah|Peter"},
    {"beast", "fox|rabbit|bear|mouse|duck|frog|hedgehog|squirrel|owl|pig"},
    {"cast", "{[castgirl]|[castboy]}[friends][elder](child=[beast])(trait=[traits])|"
             "{[castgirl](child=girl)|[castboy](child=boy)}[friends][elder](trait=[traits])|"
             "{[castgirl](child=girl)|[castboy](child=boy)}[friends][elder](trait=[traits])"},
    {"castgirl", "(hero=[girl])(he=she)(him=her)(his=her)"},
    {"castboy", "(hero=[boy])(he=he)(him=him)(his=his)"},
    {"friends", "{(pal!hero=[girl])(fhe=she)(fhim=her)(fhis=her)|(pal!hero=[boy])(fhe=he)(fhim=him)"
                "(fhis=his)}"},
    {"elder", "{(adult={mom|grandma|aunt})(ahe=she)(ahim=her)(ahis=her)|(adult={dad|grandpa|uncle})(ahe=he)"
              "(ahim=him)(ahis=his)}"},
    {"traits", "kind|brave|curious|clever|cheerful|shy|careful|gentle|funny|quiet|busy|patient"},

    /* ---- Where and when ---- */
    {"pickplace", "(place=park)(at=in the park)|(place=garden)(at=in the garden)|"
                  "(place=forest)(at=in the forest)|(place=beach)(at=on the beach)|"
                  "(place=farm)(at=on the farm)|(place=lake)(at=by the lake)|(place=river)(at=by the river)|"
                  "(place=hill)(at=on the hill)|(place=market)(at=at the market)|"
                  "(place=school)(at=at school)"},
    {"spot", "under the bed|behind the door|in the kitchen|under the table|in the garden|behind the sofa|"
             "in the big box|on the roof|beside the well|under the old tree|in the barn|behind the curtain"},
    {"day", "One {sunny|warm|cold|windy|quiet|rainy} {morning|afternoon|day|evening}|One day|"
            "One {spring|summer|autumn} {morning|day}|On {Monday|Sunday|Friday}"},

    /* ---- Things ---- */
    {"color", "red|blue|green|yellow|white|brown|black|purple|orange"},
    {"toy", "ball|kite|boat|hat|drum|doll|book|car|bell|scarf|cup|train|whistle|lamp|spoon|ring|mask|glove|"
            "flag|top|puzzle|wagon|blanket|pencil|robot|purse"},
    {"junk", "a dusty sock|an old shoe|a sleepy cat|a broken cup|a pile of leaves|a spider|an empty bag|"
             "a wet umbrella"},
    {"pickthing", "(thing=apple)(things=apples)|(thing=shell)(things=shells)|(thing=berry)(things=berries)|"
                  "(thing=nut)(things=nuts)|(thing=cookie)(things=cookies)|(thing=flower)(things=flowers)|"
                  "(thing=stone)(things=stones)|(thing=egg)(things=eggs)|(thing=pear)(things=pears)|"
                  "(thing=button)(things=buttons)"},
    {"food", "bread|soup|cheese|cake|honey|jam|pie|milk|rice|plums"},
    {"game", "hide and seek|tag|chess|catch|football|pirates"},

    /* ---- What is going on around them: many words, little plot ---- */
    {"scenes", "[scene] [scene]|[scene]|[scene] [scene] [scene]|[scene] [scene] [scene] [scene]"},
    {"scene", "[A mood] [creature] [did] {[how] |}{near|beside|under|behind|on} the {[look] |}[landmark].|"
              "[Hero] {saw|noticed|passed|painted} [a look] [landmark] and [a mood] [creature].|"
              "\"{Look at|Listen to|I like|I am afraid of} the [mood] [creature] {near|on|behind} the "
              "[landmark],\" said [pal].|[Pal] wore [a color] [wear] and {[look] |}[color] "
              "{shoes|boots|socks}.|The [sight] {was|looked|felt} [air] and [airtwo].|"
              "[Hero] ate [a flavor] {pear|apple|sandwich|pancake|carrot|muffin} and [food].|"
              "[A creature] and [a mood] [beast] [did] {together|[how]}.|"
              "\"{Do you see|Did you hear|Do you know} the [mood] [creature]?\" asked [pal]. \"{Yes|No}, but "
              "I {see|hear|know} [a mood] [creature],\" said [hero]."},
    {"look", "old|big|small|bright|long|tall|tiny|golden|shiny|lovely|strange|dusty|muddy|fancy|silver|"
             "pretty|wet|plain|fine|funny|broken|round|soft|narrow|heavy|wide|simple|crooked|secret|painted"},
    {"mood", "sleepy|hungry|noisy|lazy|wild|tired|quiet|happy|clever|friendly|young|angry|lonely|busy|fat|"
             "slow|fast|silly|loud|shy|proud|sad|cold|thirsty|nervous|calm|merry|famous|polite|little|thin|"
             "strong"},
    {"air", "warm|soft|cold|bright|fresh|clean|quiet|strange|dusty|heavy"},
    {"airtwo", "calm|dark|clear|wet|cool|sweet|pretty|rough|grey|smooth|still|light"},
    {"flavor", "fresh|sweet|warm|big|small|soft|sour|juicy"},
    {"creature", "cat|bird|dog|bee|cow|horse|hen|goat|butterfly|sheep|snail|turtle|crow|donkey|spider|swan|"
                 "goose|ant|fish|robin|lizard|pony|moth|beetle|seal|camel|hare|rat|wolf|lion|parrot|whale|"
                 "crab|lamb|deer|monkey"},
    {"did", "slept|sat|waited|danced|sang|rested|played|hopped|walked|jumped|stood|hid|ate|yawned|sneezed|"
            "waved|snored|laughed|whistled|trembled|smiled|cried|swayed|fell"},
    {"how", "quietly|slowly|happily|for a while|softly|loudly|all day|quickly|alone|again and again|lazily|"
            "gently"},
    {"landmark", "fence|bridge|tree|gate|pond|well|wall|mill|path|bush|tower|cart|window|rock|haystack|boat|"
                 "church|bench|road|chimney|field|stairs|puddle|lamp post|statue|castle|tent|ladder|fountain|"
                 "garden shed|station|tunnel"},
    {"sight", "sky|air|grass|water|wind|sand|path|snow|light|garden|evening|house"},
    {"wear", "hat|coat|shirt|dress|cap|jacket|ribbon|sweater|cloak|belt"},

    /* ---- Small phrases ---- */
    {"glad", "happy|glad|proud|excited|cheerful|pleased"},
    {"sad", "sad|upset|worried|gloomy|unhappy|cross"},
    {"opening", "[meet] [likes]|[meet]|[meet] [bond]|[meet] [likes] [bond]"},
    {"meet", "Once upon a time, there was [a trait] {little |young |small |}[child] named [hero].|"
             "There was once [a trait] [child] called [hero].|[Hero] was [a trait] {little |young |}[child].|"
             "In a {small house|little town|quiet village} {near|by} the {sea|woods|mountains} lived [a "
             "trait] [child] named [hero]."},
    {"likes", "[He] {liked|loved} to {sing|dance|draw|run|read|swim|climb|cook|paint}{ every day| in the "
              "morning| with [his] [adult]|}.|[Hero] {liked|loved} {the color [color]|[food]|[food] with "
              "[food]} {very much|more than anything}."},
    {"bond", "[His] best friend was {named |called |}[pal].|[Hero] and [pal] were {good|best|old} friends.|"
             "[He] lived with [his] [adult], who was very {kind|old|wise|funny}."},
    {"close", "[closing]|[closing]|[closing] [moral]|The end."},
    {"closing", "[Hero] went home and told [his] [adult] {all about it|everything}. \"I am {proud of you|so "
                "glad},\" said [his] [adult].|[Hero] and [pal] {laughed|smiled|danced} and {played|sang} "
                "until {it was dark|dinner time|the sun went down}.|"
                "That night, [hero] {slept very well|went to bed early|dreamed of [a color] [toy]}.|"
                "From that day on, [hero] {and [pal] were even better friends|was always "
                "{[trait]|careful|kind}}.|[He] was very [glad], and so was [pal]."},
    {"moral", "[Hero] learned that {it is good to {share|help|tell the truth|ask for help}|friends "
              "{help|need} each other}.|It was {the best|a wonderful|a very good|a long} day."},
    {"cried", "cried|shouted|called"},
    {"thanks", "\"Thank you, [pal],\" said [hero]. \"You are {so kind|a good friend|very clever}.\"|"
               "\"Thank you,\" said [hero], and [he] gave [pal] a {big hug|smile}.|"
               "[Hero] thanked [pal] and {gave [fhim] a hug|smiled}."},
    {"plot", "[lost]|[share]|[rescue]|[fear]|[weather]|[broken]|[found]|[basket]|[bake]|[race]|[quiz]|"
             "[birthday]|[trade]"},

    /* ---- Lost: three places, the last one is where it is ---- */
    {"lost", "(item=[look] [color] [toy])(spota=[spot])(spotb!spota=[spot])[Hero] had [a item]. {It was a "
             "gift from [his] [adult]. |[He] took it everywhere. |[He] played with it every day. }[Day], the "
             "[item] was gone. \"Where is my [item]?\" {cried|asked} [hero]. [He] was very [sad].\n"
             "[He] looked [spota], but {it was not there|there was only [junk]}. {Then [pal] came to help. "
             "|[He] asked [pal] for help. }\"{Did you look|Maybe it is} [spotb]?\" asked [pal]. They "
             "{ran|went} to look together. There it was! The [item] was [spotb]{, next to [junk]|}. "
             "[Thanks]"},

    /* ---- Share: n things, k given away, n - k left ---- */
    {"share", "[pickthing][pickplace][Day], [hero] {found|picked|got} [#n] [at]. {\"[Counting],\" [he] "
              "counted. |}Then [he] met [pal]. [Pal] had no [things] and {was hungry|looked [sad]}. \"{Do "
              "you want|Would you like} {some|a few} of my [things]?\" asked [hero].\n"
              "\"Yes, please,\" said [pal]. [Hero] gave [pal] [#k]. Now [pal] had [#k] and [hero] had "
              "[#left]. {[Thankpal]|[Pal] was very [glad]. [Thankpal]}"},
    {"thankpal", "\"Thank you, [hero],\" said [pal]. \"You are {so kind|a good friend}.\"|"
                 "[Pal] {smiled|hugged [hero]} and said, \"Thank you, [hero]!\""},

    /* ---- Found: k more, n + k in all ---- */
    {"found", "[pickthing][pickplace](item=[color] {bag|basket|box|bucket})[Hero] and [pal] {went to|walked "
              "to} the [place] to look for [things]. They {took|had} [a item]. First, [hero] found [#n] and "
              "put {them|all of them} in the [item]. Then [pal] found [#k].\n"
              "\"How many [things] do we have now?\" asked [pal]. [Hero] {counted|looked into the [item]}. "
              "\"[N] and [k] make [sum],\" said [hero]. \"We have [#sum]!\" They were [glad] and carried the "
              "[item] {home|to [his] [adult]}."},

    /* ---- Rescue: where it is stuck decides what saves it ---- */
    {"trap", "(stuck=up in a tall tree)(tool=a ladder)(fix=climbed up)|"
             "(stuck=in a deep hole)(tool=a rope)(fix=pulled)|"
             "(stuck=in a net)(tool=scissors)(fix=cut the net)|"
             "(stuck=in the cold water)(tool=a long branch)(fix=reached out)|"
             "(stuck=behind a locked gate)(tool=a key)(fix=opened the gate)|"
             "(stuck=under a heavy stone)(tool=a strong stick)(fix=lifted the stone)"},
    {"small", "kitten|bird|puppy|lamb|mouse|rabbit|duck|goat"},
    {"fur", "white|brown|black|grey|little|tiny|young"},
    {"rescue", "[trap][pickplace](item=[fur] [small])[Day], [hero] and [pal] {were|played|walked} [at]. They "
               "heard a {small|sad|strange} sound. It was [a item]. It was stuck [stuck]! \"{Oh no|Poor "
               "thing},\" said [pal]. \"{What can we do|How can we help it}?\"\n"
               "\"We need [tool],\" said [hero]. [Pal] ran {home|to the barn|to the farmer} and {came back "
               "with|brought} [tool]. [Hero] {carefully |slowly |bravely |}[fix], and the [item] was free. "
               "{It licked [his] hand|It ran around them|It looked [glad]}. {\"Can we keep it?\" asked "
               "[pal]. \"No, it must go back to its mother,\" said [hero].|They named it "
               "{Star|Button|Cloud|Pepper}.|They took it home and gave it some [food].}"},

    /* ---- Fear: what is feared decides what helps ---- */
    {"dread", "(dread=the dark)(cure=a little lamp)(after=saw that the room was just the same at night)|"
              "(dread=the thunder)(cure=a big drum)(after=beat it louder than the storm)|"
              "(dread=deep water)(cure=a round float)(after=swam all the way across)|"
              "(dread=big dogs)(cure=a tasty bone)(after=gave it to the dog, and the dog wagged its tail)|"
              "(dread=the tall slide)(cure=a warm hand)(after=went down, down, down)|"
              "(dread=the first day of school)(cure=a lucky button)(after=made three new friends)"},
    {"fear", "[dread][Hero] was {always |very |}afraid of [dread]. {\"I can not do it,\" said [hero]. |[He] "
             "{hid|cried|ran away} every time. }[Pal] {saw it|knew that} and wanted to help. \"{Do not "
             "worry|Do not be afraid}, [hero],\" said [pal]. \"I will give you [cure].\"\n"
             "[Hero] took [cure] and {thought about it|held it tight|took a deep breath}. Then [he] was "
             "{brave|not so afraid}. [He] [after]. \"I did it!\" [cried] [hero]. Now [he] was not afraid of "
             "[dread] any more."},

    /* ---- Weather: the sky decides the plan ---- */
    {"sky", "(sky=it began to rain)(plan=went inside and made hot soup)|"
            "(sky=a strong wind came)(plan=flew a kite)|(sky=it started to snow)(plan=built a snowman)|"
            "(sky=the sun became very hot)(plan=sat in the shade and ate ice cream)|"
            "(sky=a thick fog came)(plan=held hands and walked home)"},
    {"weather", "[sky][pickplace](sport=[game])[Day], [hero] wanted to play [sport] with [pal] [at]. {\"Come "
                "with me,\" said [hero]. |[He] put on [his] [color] {hat|coat|shoes}. }They had just started "
                "when [sky]. \"Now we can not play [sport],\" said [pal]. [Fhe] was [sad].\n"
                "But [hero] had an idea. \"Look, [sky]! {We can do something else|That is good for us},\" "
                "[he] said. So they [plan]. It was {even better than [sport]|so much fun}."},

    /* ---- Broken: truth or not ---- */
    {"broken", "(item=[color] {cup|plate|vase|clock|lamp|jug})[Day], [hero] {ran|played|jumped} in the "
               "{house|kitchen|hall}. {\"Be careful,\" said [his] [adult]. |}Crash! The [item] fell {down|on "
               "the floor} and broke. It was the favorite [item] of [his] [adult]. [Hero] was [sad].\n"
               "{[Truth]|[Hiding]}"},
    {"truth", "[He] went to [his] [adult] and said, \"I broke the [item]. I am sorry.\" [His] [adult] was "
              "not angry. \"Thank you for telling the truth,\" [ahe] said. {Together they fixed the [item] "
              "with glue|They cleaned the floor together}."},
    {"hiding", "[He] hid the [item] [spot] and said nothing. Soon [his] [adult] asked, \"Where is my "
               "[item]?\" \"I do not know,\" said [hero]. But [he] {felt bad|could not sleep}. At last [he] "
               "said, \"I broke it and I hid it. I am sorry.\" [His] [adult] {hugged [him]|sighed}. \"Next "
               "time, tell me {right away|the truth},\" [ahe] said."},

    /* ---- Basket: three things packed and named again ---- */
    {"basket", "(fooda=[food])(foodb!fooda=[food])(item=[color] {basket|bag})[Day], [hero] went to see [his] "
               "[adult]. [He] took [a item] with [fooda] and [foodb] in it. On the way [he] met {a hungry|an "
               "old|a tired} [beast]. \"What is in your [item]?\" asked the {stranger|animal}. \"[Fooda] and "
               "[foodb],\" said [hero].\n\"May I have some [fooda]?\" [Hero] {felt sorry for it|was not "
               "hungry|had a kind heart}, so [he] {said yes|gave it the [fooda]}. When [hero] came to [his] "
               "[adult], there was only [foodb] in the [item]. \"{Where is the [fooda]|Did you not bring "
               "[fooda]}?\" asked [his] [adult]. \"I gave it {to someone who was hungry|away},\" said "
               "[hero]. {\"You did well,\" said [his] [adult].|[His] [adult] smiled, and they ate the "
               "[foodb] together.}"},

    /* ---- Bake: a mistake and how it is mended ---- */
    {"slip", "(slip=salt)(taste=much too salty)|(slip=pepper)(taste=so hot that they sneezed)|"
             "(slip=lemon)(taste=very sour)|(slip=soap)(taste=full of bubbles)"},
    {"bake", "[slip](dish={cake|pie|pizza|pudding})[Hero] and [his] [adult] wanted to make {a big|some} "
             "[dish] for [pal]. They {mixed|put} flour, {eggs|butter} and milk in [a color] bowl. But [hero] "
             "made a mistake. [He] took the [slip] and not the sugar! The [dish] was [taste].\n"
             "\"Oh no,\" said [hero]. \"I used [slip]!\" [His] [adult] laughed. \"{It happens to everyone|We "
             "can try again},\" [ahe] said. So they made a new [dish], this time with sugar and without "
             "[slip]. [Pal] {ate it all|asked for more}. \"This is the best [dish] ever,\" said [pal]."},

    /* ---- Race: pride loses, patience wins ---- */
    {"race", "[pickplace](prize=[color] {ribbon|medal|cup|hat})[Day], there was a race [at]. The prize was "
             "[a prize]. [Hero] and [pal] wanted to win. {[Proud]|[Patient]}"},
    {"proud", "\"I am the fastest,\" said [hero]. \"I do not need to hurry.\" \"Ready, set, go!\" [Hero] ran "
              "far ahead and then [he] {took a nap|stopped to eat [food]|sat down} under a tree. [Pal] did "
              "not stop. [Fhe] ran and ran, and so [pal] won the race.\n"
              "[Pal] got the [prize]. \"{I should not have stopped|You were faster today},\" said [hero]. "
              "\"{You can try again|We can race again} {tomorrow|next year},\" said [pal]."},
    {"patient", "\"Ready, set, go!\" [Pal] {fell and hurt [fhis] knee|lost a shoe}. [Hero] stopped to help "
                "[fhim]. \"{Are you hurt|Can you go on}?\" asked [hero]. \"You will lose the race,\" said "
                "[pal]. \"That is not important,\" said [hero].\n"
                "They {walked|ran} to the end together and came last. But everyone {clapped|cheered}, and "
                "[hero] got the [prize] for being a good friend. [He] gave it to [pal]."},

    /* ---- Quiz: questions with one answer ---- */
    {"quiz", "[Day], [hero] and [pal] played a game of questions. {\"I will ask first,\" said [pal]. "
             "|}[Question] [Right]\n[Question] [Right]\n{[Question] [Right]|Then [pal] asked, \"How much is "
             "[n] and [k]?\" [Hero] {thought for a while|counted}. \"[Sum],\" said [hero]. [Right]}"},
    {"question", "[animal]\"What does {a|the} [said] say?\" asked [pal]. \"[Sound]!\" said [hero].|"
                 "[knows]\"What {color is|is the color of} [what]?\" asked [pal]. \"[Hue],\" said [hero].|"
                 "[opposite]\"What is the opposite of [this]?\" asked [pal]. \"[That],\" said [hero]."},
    {"animal", "(said=cow)(sound=moo)|(said=dog)(sound=woof)|(said=cat)(sound=meow)|(said=duck)(sound=quack)|"
               "(said=sheep)(sound=baa)|(said=pig)(sound=oink)|(said=frog)(sound=ribbit)|"
               "(said=owl)(sound=hoo)"},
    {"knows", "(what=the sky)(hue=blue)|(what=the grass)(hue=green)|(what=the snow)(hue=white)|"
              "(what=the sun)(hue=yellow)|(what=the night)(hue=black)|(what=a plum)(hue=purple)"},
    {"opposite", "(this=big)(that=small)|(this=hot)(that=cold)|(this=day)(that=night)|(this=up)(that=down)|"
                 "(this=old)(that=new)|(this=wet)(that=dry)|(this=fast)(that=slow)"},
    {"right", "\"{That is right|Yes|Correct|Very good}!\" said [pal].|\"Right,\" said [pal]."},

    /* ---- Birthday: one year older, one candle more ---- */
    {"birthday", "(paint=[color])(item=[paint] [toy])(spota=[spot])It was the birthday of [pal]. Last year "
                 "[fhe] was [n], and now [fhe] was [next] years old. [Hero] wanted to give [fhim] a present. "
                 "[He] made [a item] and hid it [spota]. \"[Pal] must not see it,\" [he] {thought|said to "
                 "[his] [adult]}.\nThere was {a big cake|a cake} with [next] candles. [Pal] {blew "
                 "out|counted} all [next] candles. Then [hero] said, \"Look [spota]!\" [Pal] looked [spota] "
                 "and found the [item]. \"{It is beautiful|I love it},\" [fhe] said. \"[A paint] one is just "
                 "what I wanted.\""},

    /* ---- Trade: a chain of swaps ---- */
    {"trade", "(itema=[color] [toy])(itemb!itema=[color] [toy])(wish!itema=[color] [toy])[pickplace][Hero] "
              "had [a itema], but [he] wanted [a wish]. [Day], [he] went to the [place] and met [pal]. \"I "
              "have [a itemb],\" said [pal], \"and I would like [a itema].\" So they traded. Now [hero] had "
              "the [itemb] and [pal] had the [itema].\nThen [hero] met an old {man|woman|farmer} who had [a "
              "wish]. \"I will give you the [wish] for the [itemb],\" said the old one. [Hero] was very "
              "[glad]. [He] gave the [itemb] away and {ran|went} home with the [wish]. {It was just what "
              "[he] wanted|[He] showed it to [his] [adult]}."},
};
/* clang-format on */
const size_t p4_story_rules_count = sizeof p4_story_rules / sizeof p4_story_rules[0];
